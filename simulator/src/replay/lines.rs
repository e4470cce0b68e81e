//! Reads a log file line by line in constant memory, whatever the file holds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use crate::Error;
use crate::log_format::LINE_BYTES_MAX;
use crate::numbers::count;

/// Bytes read ahead.
const BUFFER_BYTES: usize = 256 * 1024;

/// Lines with their numbers, counted from 1.
#[derive(Debug)]
pub(super) struct Lines<R> {
    source: R,
    number: u64,
    line: Vec<u8>,
}

impl Lines<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| unreadable(path, source))?;
        Ok(Self::over(BufReader::with_capacity(BUFFER_BYTES, file)))
    }
}

impl<R: BufRead> Lines<R> {
    pub(super) fn over(source: R) -> Self {
        Self { source, number: 0, line: Vec::new() }
    }

    /// The next line without its end; of a line that is too long, one byte more than the limit.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        self.line.clear();
        let limit = count(LINE_BYTES_MAX) + 1;
        let read = (&mut self.source).take(limit).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
        } else if count(self.line.len()) == limit {
            self.skip_to_line_end()?;
        }
        Ok(Some((self.number, &self.line)))
    }

    fn skip_to_line_end(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.source.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.source.consume(used);
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::File { action: "read", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<(u64, usize)> {
        let mut lines = Lines::over(text);
        let mut out = Vec::new();
        while let Some((number, line)) = lines.next().expect("memory can be read") {
            out.push((number, line.len()));
        }
        out
    }

    #[test]
    fn line_ends_of_all_systems_are_taken_off() {
        assert_eq!(all(b"ab\ncd\r\n\nlast"), [(1, 2), (2, 2), (3, 0), (4, 4)]);
        assert_eq!(all(b""), []);
    }

    #[test]
    fn a_giant_line_is_cut_and_the_next_one_is_whole() {
        let mut text = vec![b'x'; LINE_BYTES_MAX * 2 + 7];
        text.extend_from_slice(b"\nnext\n");
        assert_eq!(all(&text), [(1, LINE_BYTES_MAX + 1), (2, 4)]);
    }
}
