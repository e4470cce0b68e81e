// Package tests holds the gateway against real processes: Caddy with the module, an upstream, and a
// Weir node on SQLite. CADDY_BINARY and WEIR_BINARY name the programs, as scripts/gateway does; one
// that is not named is built from this repository.
package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience bounds every wait for something that must happen.
	patience   = 60 * time.Second
	adminToken = "dev-admin"
)

// The programs under test, built or found once.
var caddyBinary, weirBinary string

func TestMain(m *testing.M) {
	code, err := withPrograms(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func withPrograms(run func() int) (int, error) {
	dir, err := os.MkdirTemp("", "weir-gateway-tests")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if caddyBinary, err = findCaddy(dir); err != nil {
		return 0, err
	}
	if weirBinary, err = findWeir(); err != nil {
		return 0, err
	}
	return run(), nil
}

// named is the program that a variable names, empty when it is not set.
func named(variable string) (string, error) {
	program := os.Getenv(variable)
	if program == "" {
		return "", nil
	}
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	return program, nil
}

func findCaddy(dir string) (string, error) {
	if program, err := named("CADDY_BINARY"); program != "" || err != nil {
		return program, err
	}
	program := filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../cmd/caddy")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Caddy with the module: %w\n%s", err, out)
	}
	return program, nil
}

func findWeir() (string, error) {
	if program, err := named("WEIR_BINARY"); program != "" || err != nil {
		return program, err
	}
	build := exec.Command("cargo", "build", "--quiet", "--package", "weir-node",
		"--message-format", "json-render-diagnostics")
	build.Dir = "../.."
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("these tests need a Weir node, and WEIR_BINARY does not name one; "+
			"building it with cargo failed: %w", err)
	}
	for _, line := range bytes.Split(out, []byte("\n")) {
		var built struct {
			Executable string `json:"executable"`
			Target     struct {
				Name string `json:"name"`
			} `json:"target"`
		}
		if json.Unmarshal(line, &built) == nil && built.Executable != "" && built.Target.Name == "weir" {
			return built.Executable, nil
		}
	}
	return "", fmt.Errorf("cargo built no program `weir`")
}

// process is a program that a test started, ended at the latest with the test.
type process struct {
	t       testing.TB
	command *exec.Cmd
	log     *os.File
	done    chan struct{}
}

func start(t testing.TB, logName string, stdout io.Writer, program string, args ...string) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), logName))
	check(t, err)
	p := &process{t: t, command: exec.Command(program, args...), log: log, done: make(chan struct{})}
	// A node takes every WEIR_… variable as a setting, and so would take this test's own.
	p.command.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "WEIR_")
	})
	// What a program keeps for its user goes with the test.
	home := t.TempDir()
	p.command.Env = append(p.command.Env, "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	p.command.Stdout, p.command.Stderr = stdout, log
	if stdout == nil {
		p.command.Stdout = log
	}
	check(t, p.command.Start())
	go func() {
		_ = p.command.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			lines := strings.Split(string(text), "\n")
			t.Logf("%s, last lines:\n%s", logName, strings.Join(lines[max(0, len(lines)-25):], "\n"))
		}
		log.Close()
	})
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.done
}

// stop ends the program in order and waits.
func (p *process) stop() {
	p.t.Helper()
	check(p.t, p.command.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the program did not end in order")
	}
}

// node is a Weir node on SQLite.
type node struct {
	*process
	t    testing.TB
	addr string
	db   string
}

func startNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, addr: "127.0.0.1:0", db: filepath.Join(t.TempDir(), "weir.db")}
	n.start()
	return n
}

var listening = regexp.MustCompile(`^weir listening http=(\S+)`)

// start starts the node, again at the address it had.
func (n *node) start() {
	n.t.Helper()
	out, in := io.Pipe()
	n.process = start(n.t, "weir.log", in, weirBinary,
		"serve", "--dev", "--http", n.addr, "--database-url", "sqlite://"+n.db)
	n.t.Cleanup(func() { in.Close() })
	found := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if match := listening.FindStringSubmatch(lines.Text()); match != nil {
				found <- match[1]
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case n.addr = <-found:
	case <-n.done:
		n.t.Fatal("the node ended at its start")
	case <-time.After(patience):
		n.t.Fatal("the node does not listen")
	}
}

func (n *node) url() string { return "http://" + n.addr }

// call sends JSON to the node as admin and reads JSON.
func (n *node) call(method, path string, body any) map[string]any {
	n.t.Helper()
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		check(n.t, err)
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, n.url()+path, reader)
	check(n.t, err)
	request.Header.Set("Authorization", "Bearer "+adminToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	check(n.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(n.t, err)
	if response.StatusCode/100 != 2 {
		n.t.Fatalf("%s %s: %d %s", method, path, response.StatusCode, text)
	}
	read := map[string]any{}
	if len(text) > 0 {
		check(n.t, json.Unmarshal(text, &read))
	}
	return read
}

// subscription is a customer with a plan of its own.
type subscription struct {
	node    *node
	id, key string
}

// subscribe makes a plan of this limit a month, nil for none, and a subscription to it.
func (n *node) subscribe(limit any, extra map[string]any) subscription {
	n.t.Helper()
	plan := map[string]any{
		"name":  fmt.Sprintf("plan-%d", time.Now().UnixNano()),
		"quota": map[string]any{"limit": limit, "every": "P1M", "anchor": "calendar", "enforcement": "hard"},
	}
	for name, value := range extra {
		plan[name] = value
	}
	made := n.call(http.MethodPost, "/api/v1/plans", plan)
	made = n.call(http.MethodPost, "/api/v1/subscriptions", map[string]any{"planId": made["id"]})
	return subscription{node: n, id: made["id"].(string), key: made["key"].(string)}
}

// records are all lines of the ledger, by event id; a double one fails the test.
func (s subscription) records() map[string]map[string]any {
	s.node.t.Helper()
	found := map[string]map[string]any{}
	cursor := ""
	for {
		page := s.node.call(http.MethodGet,
			"/api/v1/usage/records?limit=1000&subscriptionId="+s.id+cursor, nil)
		for _, entry := range page["data"].([]any) {
			record := entry.(map[string]any)
			id := record["id"].(string)
			if found[id] != nil {
				s.node.t.Fatalf("event %s is in the ledger twice", id)
			}
			found[id] = record
		}
		next, more := page["nextCursor"].(string)
		if !more {
			return found
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
}

// awaitRecords waits until the ledger has so many lines, and a moment whether more come.
func (s subscription) awaitRecords(count int) map[string]map[string]any {
	s.node.t.Helper()
	var found map[string]map[string]any
	eventually(s.node.t, func() error {
		found = s.records()
		if len(found) < count {
			return fmt.Errorf("%d events of %d are in the ledger", len(found), count)
		}
		return nil
	})
	if len(found) != count {
		s.node.t.Fatalf("%d events are in the ledger, not %d", len(found), count)
	}
	return found
}

// used is what the meter says.
func (s subscription) used() int {
	s.node.t.Helper()
	return int(s.node.call(http.MethodGet, "/api/v1/subscriptions/"+s.id+"/usage", nil)["used"].(float64))
}

// upstream is the API behind the gateway. It notes the event id of every request that reaches it.
type upstream struct {
	*httptest.Server
	mu  sync.Mutex
	ids map[string]int
}

func startUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{ids: map[string]int{}}
	u.Server = httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.ids[r.Header.Get("X-Event-Id")]++
	u.mu.Unlock()
	switch r.URL.Path {
	case "/fail":
		w.WriteHeader(http.StatusBadGateway)
	case "/cut":
		// Promises more than it sends, then cuts the connection.
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("half"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "/slow":
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(patience):
		}
	default:
		size, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("RateLimit", "the upstream's own")
		fmt.Fprintf(w, "read %d", size)
	}
}

// reached are the event ids that arrived, each once.
func (u *upstream) reached(t testing.TB) map[string]int {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	found := make(map[string]int, len(u.ids))
	for id, times := range u.ids {
		if times != 1 {
			t.Fatalf("event id %q reached the upstream %d times", id, times)
		}
		found[id] = times
	}
	return found
}

// gateway is Caddy with the module.
type gateway struct {
	*process
	t           testing.TB
	addr, admin string
	config      string
	client      *http.Client
}

func freePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// startGateway starts Caddy with `weir { OPTIONS }` before the upstream; site is put before it.
func startGateway(t testing.TB, up *upstream, options, site string) *gateway {
	t.Helper()
	g := &gateway{t: t, addr: freePort(t), admin: freePort(t)}
	g.client = &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 512},
		Timeout:   patience,
	}
	t.Cleanup(g.client.CloseIdleConnections)
	g.configure(up, options, site)
	g.start()
	return g
}

func (g *gateway) configure(up *upstream, options, site string) {
	g.config = fmt.Sprintf(`{
	admin %s
	default_bind 127.0.0.1
	persist_config off
	grace_period 10s
	servers {
		trusted_proxies static 127.0.0.1/8
	}
}
http://%s {
	%s
	weir {
		%s
	}
	reverse_proxy %s {
		header_up X-Event-Id {http.weir.event_id}
	}
}
`, g.admin, g.addr, site, options, strings.TrimPrefix(up.URL, "http://"))
}

func (g *gateway) start() {
	g.t.Helper()
	file := filepath.Join(g.t.TempDir(), "Caddyfile")
	check(g.t, os.WriteFile(file, []byte(g.config), 0o600))
	g.process = start(g.t, "caddy.log", nil, caddyBinary, "run", "--adapter", "caddyfile", "--config", file)
	eventually(g.t, func() error {
		select {
		case <-g.done:
			text, _ := os.ReadFile(g.log.Name())
			g.t.Fatalf("Caddy ended at its start:\n%s", text)
		default:
		}
		connection, err := net.Dial("tcp", g.addr)
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

// reload loads the configuration that configure made.
func (g *gateway) reload() {
	g.t.Helper()
	request, err := http.NewRequest(http.MethodPost, "http://"+g.admin+"/load", strings.NewReader(g.config))
	check(g.t, err)
	request.Header.Set("Content-Type", "text/caddyfile")
	// The same configuration again would be no reload otherwise.
	request.Header.Set("Cache-Control", "must-revalidate")
	response, err := http.DefaultClient.Do(request)
	check(g.t, err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		g.t.Fatalf("reload: %d %s", response.StatusCode, text)
	}
}

// metric is the sum of a counter over its labels that contain every given text.
func (g *gateway) metric(name string, labels ...string) float64 {
	g.t.Helper()
	response, err := http.Get("http://" + g.admin + "/metrics")
	check(g.t, err)
	defer response.Body.Close()
	sum, lines := 0.0, bufio.NewScanner(response.Body)
next:
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(line, label) {
				continue next
			}
		}
		var value float64
		_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value)
		check(g.t, err)
		sum += value
	}
	return sum
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// get sends a request with a key; a connection that fails is an error.
func (g *gateway) get(key, path string) (answer, error) {
	request, err := http.NewRequest(http.MethodGet, "http://"+g.addr+path, nil)
	if err != nil {
		return answer{}, err
	}
	if key != "" {
		request.Header.Set("X-Subscription-Key", key)
	}
	return g.do(request)
}

func (g *gateway) do(request *http.Request) (answer, error) {
	response, err := g.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, body}, err
}

func (g *gateway) mustGet(key, path string) answer {
	g.t.Helper()
	got, err := g.get(key, path)
	check(g.t, err)
	return got
}

// load keeps workers asking until the context ends; it gives the number of each status, and of
// requests without an answer under 0.
func (g *gateway) load(ctx context.Context, workers int, key string) func() map[int]int {
	var mu sync.Mutex
	var group sync.WaitGroup
	counts := map[int]int{}
	for range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			for ctx.Err() == nil {
				got, err := g.get(key, "/")
				mu.Lock()
				if err != nil {
					counts[0]++
				} else {
					counts[got.status]++
				}
				mu.Unlock()
			}
		}()
	}
	return func() map[int]int {
		group.Wait()
		return counts
	}
}

// eventually asks until there is no error.
func eventually(t testing.TB, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// try runs a command on the configuration that ends by itself, and gives what it printed.
func (g *gateway) try(command string) (string, error) {
	g.t.Helper()
	file := filepath.Join(g.t.TempDir(), "Caddyfile")
	check(g.t, os.WriteFile(file, []byte(g.config), 0o600))
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	home := g.t.TempDir()
	run := exec.CommandContext(ctx, caddyBinary, command, "--adapter", "caddyfile", "--config", file)
	run.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	text, err := run.CombinedOutput()
	return string(text), err
}
