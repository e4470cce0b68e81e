package gateway

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script runs scripts/gateway with a Go that only notes what it is told, as this shell text does.
func script(t *testing.T, fakeGo string, args ...string) (output string, err error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go": fakeGo, "gofmt": "", "cc": ""} {
		text = "#!/usr/bin/env bash\n" + text + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command("../scripts/gateway", args...)
	command.Env = append(os.Environ(),
		"PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "WEIR_BINARY="+filepath.Join(dir, "go"))
	text, err := command.CombinedOutput()
	return string(text), err
}

func TestTheScriptSaysWhichGoIsNeeded(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(mod), "\ngo ")
	needed, _, _ := strings.Cut(after, "\n")
	// An old Go tells its version all the same.
	output, err := script(t, `case $1 in version) echo 'go version go1.2.3' ;; *) exit 1 ;; esac`, "build")
	if err == nil || !strings.Contains(output, "Go "+needed+" or newer is needed") || !strings.Contains(output, "go1.2.3") {
		t.Errorf("%v: %s", err, output)
	}
}

func TestTheScriptBuildsBeforeItTests(t *testing.T) {
	t.Parallel()
	output, err := script(t, `echo "go $* caddy=${CADDY_BINARY##*/} node=${WEIR_BINARY##*/}" >&2`, "test")
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	build := strings.Index(output, "go build -buildvcs=false")
	test := strings.Index(output, "go test -race")
	if build < 0 || test < build || !strings.Contains(output[test:], "caddy=caddy node=go") {
		t.Error(output)
	}
}
