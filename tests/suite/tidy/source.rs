//! One file as the rules see it: code apart from comments and strings, tests apart from the rest.
//!
//! Role: a lexer of the few shapes that could fool a search for words. Masked text keeps every
//! line break, so a line number holds in the original too.

/// A Rust file or a manifest.
pub(crate) struct Source {
    /// Path from the repository's root, with `/`.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// Its code, with blanks for comments and for what stands in quotes.
    pub(crate) code: String,
    /// Its comments, with blanks for all else.
    pub(crate) comments: String,
    /// Whether the whole file is test or bench code.
    pub(crate) is_test: bool,
    /// For each line, whether it belongs to an item under `#[cfg(test)]`.
    tested_lines: Vec<bool>,
    /// Files below which all is test code because this file says so.
    test_modules: Vec<String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) =
            if is_rust(path) { mask(text) } else { (text.to_owned(), String::new()) };
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            is_test: path.split('/').any(|part| matches!(part, "tests" | "benches" | "tests.rs")),
            tested_lines: vec![false; text.lines().count() + 1],
            test_modules: Vec::new(),
            code,
            comments,
        };
        source.find_tests();
        source
    }

    pub(crate) fn is_rust(&self) -> bool {
        is_rust(&self.path)
    }

    /// Whether `line`, from 1, is test code.
    pub(crate) fn is_tested(&self, line: usize) -> bool {
        self.is_test || self.tested_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// How many characters of `line`, from 1, stand in quotes (blanks there are not counted).
    pub(crate) fn quoted_chars(&self, line: usize) -> usize {
        let [text, code, comments] = [&self.text, &self.code, &self.comments]
            .map(|text| text.lines().nth(line - 1).unwrap_or_default());
        let masks = code.chars().zip(comments.chars());
        text.chars().zip(masks).filter(|(c, masks)| *c != ' ' && *masks == (' ', ' ')).count()
    }

    /// The modules between the crate's root and this file: `shard/actor.rs` has two.
    pub(crate) fn modules_below(&self, crate_src: &str) -> Option<Vec<&str>> {
        let below = self.path.strip_prefix(crate_src)?.strip_suffix(".rs")?;
        let modules: Vec<&str> = below.split('/').filter(|part| *part != "mod").collect();
        Some(modules)
    }

    fn find_tests(&mut self) {
        let attributes: Vec<usize> = self.code.match_indices("#[cfg(").map(|(at, _)| at).collect();
        for at in attributes {
            let rest = &self.code[at..];
            let Some(attribute_len) = rest.find(")]") else { continue };
            let condition = &rest[..attribute_len];
            if words(condition, "test").next().is_none() || condition.contains("not(test") {
                continue;
            }
            let item = &rest[attribute_len..];
            let (end, body) = item_end(item);
            if !body {
                self.test_modules.extend(declared_module(&self.path, &item[..end]));
            }
            let first = line_at(&self.code, at);
            let last = line_at(&self.code, at + attribute_len + end);
            for line in first..=last {
                self.tested_lines[line - 1] = true;
            }
        }
    }
}

pub(crate) fn is_rust(path: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// Marks the files that another file declares with `#[cfg(test)] mod name;`.
pub(crate) fn mark_test_modules(mut sources: Vec<Source>) -> Vec<Source> {
    let declared: Vec<String> =
        sources.iter().flat_map(|source| source.test_modules.iter().cloned()).collect();
    for source in &mut sources {
        let below = |module: &String| {
            let rest = source.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        source.is_test |= declared.iter().any(below);
    }
    sources
}

/// Where the item that starts `text` ends, and whether it has a body in braces.
fn item_end(text: &str) -> (usize, bool) {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    // The text starts with the `)]` of the attribute itself.
    for (at, c) in text.char_indices().skip(2) {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces <= 0 && brackets <= 0 {
                    return (at, true);
                }
            }
            ';' if brackets == 0 && braces == 0 => return (at, false),
            _ => {}
        }
    }
    (text.len(), true)
}

/// The path, less its ending, of the file that `mod name` in `item` stands for.
fn declared_module(path: &str, item: &str) -> Option<String> {
    let name = item.rsplit_once("mod ")?.1.trim();
    let (folder, file) = path.rsplit_once('/')?;
    let stem = file.strip_suffix(".rs")?;
    let own_folder = !matches!(stem, "lib" | "main" | "mod");
    Some(if own_folder { format!("{folder}/{stem}/{name}") } else { format!("{folder}/{name}") })
}

/// Line of a byte offset, from 1.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Where `word` stands in `code` and is not part of a longer name.
pub(crate) fn words<'t>(code: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let starts_as_name = word.starts_with(is_name);
        let ends_as_name = word.ends_with(is_name);
        !(starts_as_name && before.is_some_and(is_name)
            || ends_as_name && after.is_some_and(is_name))
    })
}

/// Splits a file into its code and its comments, each as long in lines as the whole.
fn mask(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut at = 0;
    while at < chars.len() {
        let (len, kind) = token(&chars, at);
        for c in &chars[at..at + len] {
            let blank = if *c == '\n' { '\n' } else { ' ' };
            code.push(if kind == Kind::Code { *c } else { blank });
            comments.push(if kind == Kind::Comment { *c } else { blank });
        }
        at += len;
    }
    (code, comments)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Quoted,
}

/// Length and kind of what begins at `at`; plain code goes one character at a time.
fn token(chars: &[char], at: usize) -> (usize, Kind) {
    let rest = &chars[at..];
    let after_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => {
            let len = rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
            (len, Kind::Comment)
        }
        ['/', '*', ..] => (block_comment(rest), Kind::Comment),
        ['"', ..] => (quoted(rest), Kind::Quoted),
        ['r', '"' | '#', ..] if !after_name => raw_string(rest, 1),
        ['b' | 'c', 'r', '"' | '#', ..] if !after_name => raw_string(rest, 2),
        // A quote is a character only when another closes it; otherwise it begins a lifetime.
        ['\'', '\\', ..] => {
            let close = rest.iter().skip(3).position(|c| *c == '\'').unwrap_or(rest.len());
            ((close + 4).min(rest.len()), Kind::Quoted)
        }
        ['\'', _, '\'', ..] => (3, Kind::Quoted),
        _ => (1, Kind::Code),
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] if depth == 1 => return at + 2,
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"` or `r#"…"#` with its `prefix` letters; a raw name such as `r#type` is code.
fn raw_string(rest: &[char], prefix: usize) -> (usize, Kind) {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return (1, Kind::Code);
    }
    let closes = |at: &usize| {
        rest[*at] == '"'
            && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    let end = (open + 1..rest.len()).find(closes).map_or(rest.len(), |at| at + 1 + hashes);
    (end, Kind::Quoted)
}
