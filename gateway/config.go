package gateway

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Defaults and bounds of the options.
const (
	defaultKey = "{http.request.header.X-Subscription-Key}"
	// defaultTimeout: a node answers in a millisecond; a tenth of a second is what a client hardly
	// notices when one does not.
	defaultTimeout      = 100 * time.Millisecond
	defaultFlush        = 5 * time.Second
	defaultBatch        = 1_000
	defaultBuffer       = 50_000
	defaultSpoolMax     = 256 << 20
	defaultDenialRepeat = time.Second

	timeoutMax = 30 * time.Second
	// A node takes no more events at once.
	batchMax = 10_000
	// A segment is 4 MiB; a bound below two could not be worked off and written at once.
	spoolMaxMin = 8 << 20
)

// Fail modes: what happens when no node decides in time.
const (
	// FailOpen lets the request through; its event is recorded and billed.
	FailOpen = "open"
	// FailClosed answers 503.
	FailClosed = "closed"
	// FailLocal lets a number of units a key and window through, 429 beyond.
	FailLocal = "local"
)

// Fail is the policy when no node decides in time.
type Fail struct {
	// Mode is open (default), closed or local.
	Mode string `json:"mode,omitempty"`
	// Limit is in units, for local.
	Limit uint64 `json:"limit,omitempty"`
	// Window is in which a local bucket fills, for local.
	Window caddy.Duration `json:"window,omitempty"`
}

// setDefaults fills in what the configuration left out.
func (h *Handler) setDefaults() {
	if h.Key == "" {
		h.Key = defaultKey
	}
	if h.Fail == nil {
		h.Fail = &Fail{}
	}
	if h.Fail.Mode == "" {
		h.Fail.Mode = FailOpen
	}
	setDefault(&h.Timeout, caddy.Duration(defaultTimeout))
	setDefault(&h.Flush, caddy.Duration(defaultFlush))
	setDefault(&h.Batch, defaultBatch)
	setDefault(&h.Buffer, max(defaultBuffer, h.Batch))
	setDefault(&h.SpoolMax, defaultSpoolMax)
	if h.DenialRepeat == nil {
		repeat := caddy.Duration(defaultDenialRepeat)
		h.DenialRepeat = &repeat
	}
	if h.Coalesce == nil {
		together := true
		h.Coalesce = &together
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// resolve replaces placeholders of endpoints, token and spool, which are the same for every
// request, and checks what came of them.
func (h *Handler) resolve() error {
	repl := caddy.NewReplacer()
	h.endpoints = nil
	for _, raw := range h.Endpoints {
		endpoint, err := repl.ReplaceOrErr(raw, true, true)
		if err != nil {
			return fmt.Errorf("weir: endpoint %q: %w", raw, err)
		}
		base, err := baseURL(endpoint)
		if err != nil {
			return fmt.Errorf("weir: endpoint %q: %w", raw, err)
		}
		if !slices.Contains(h.endpoints, base) {
			h.endpoints = append(h.endpoints, base)
		}
	}
	if len(h.endpoints) == 0 {
		return fmt.Errorf("weir: endpoint is missing: name at least one node, e.g. http://127.0.0.1:8080")
	}
	if h.Token == "" {
		return fmt.Errorf("weir: token is missing: a token of scope gateway, e.g. {env.WEIR_TOKEN}")
	}
	token, err := repl.ReplaceOrErr(h.Token, true, true)
	if err != nil {
		return fmt.Errorf("weir: token: %w", err)
	}
	h.token = strings.TrimSpace(token)
	if h.token == "" || strings.ContainsAny(h.token, " \t\r\n") {
		return fmt.Errorf("weir: token must be one word")
	}
	if h.Spool == "" {
		h.spool = ""
		return nil
	}
	spool, err := repl.ReplaceOrErr(h.Spool, true, true)
	if err != nil {
		return fmt.Errorf("weir: spool: %w", err)
	}
	if h.spool, err = filepath.Abs(spool); err != nil {
		return fmt.Errorf("weir: spool: %w", err)
	}
	return nil
}

func baseURL(endpoint string) (string, error) {
	read, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "", fmt.Errorf("is not a URL: %w", err)
	case read.Scheme != "http" && read.Scheme != "https":
		return "", fmt.Errorf("must begin with http:// or https://")
	case read.Host == "":
		return "", fmt.Errorf("names no host")
	case read.User != nil:
		return "", fmt.Errorf("must not hold a user; the token goes into `token`")
	case strings.Trim(read.Path, "/") != "" || read.RawQuery != "" || read.Fragment != "":
		return "", fmt.Errorf("must end after host and port")
	}
	return read.Scheme + "://" + read.Host, nil
}

// check looks at the values on their own.
func (h *Handler) check() error {
	switch {
	case h.Timeout < 0 || time.Duration(h.Timeout) > timeoutMax:
		return fmt.Errorf("weir: timeout must be above 0 and at most %s", timeoutMax)
	case h.Flush < 0:
		return fmt.Errorf("weir: flush must be above 0")
	case h.Batch < 1 || h.Batch > batchMax:
		return fmt.Errorf("weir: batch must be from 1 to %d events", batchMax)
	case h.Buffer < h.Batch:
		return fmt.Errorf("weir: buffer (%d) must hold at least a batch (%d)", h.Buffer, h.Batch)
	case h.SpoolMax < spoolMaxMin:
		return fmt.Errorf("weir: spool_max must be at least %d bytes", spoolMaxMin)
	case *h.DenialRepeat < 0:
		return fmt.Errorf("weir: denial_repeat must not be negative")
	}
	switch h.Fail.Mode {
	case FailOpen, FailClosed:
		if h.Fail.Limit != 0 || h.Fail.Window != 0 {
			return fmt.Errorf("weir: fail %s takes no limit", h.Fail.Mode)
		}
	case FailLocal:
		if h.Fail.Limit == 0 || h.Fail.Window <= 0 {
			return fmt.Errorf("weir: fail local needs units and a window above 0, e.g. 50/1s")
		}
	default:
		return fmt.Errorf("weir: fail must be open, closed or local, not %q", h.Fail.Mode)
	}
	return nil
}

// Validate refuses what Provision could not have used; it is called after it, with all defaults
// filled in.
func (h *Handler) Validate() error {
	if strings.TrimSpace(h.Key) == "" {
		return fmt.Errorf("weir: key is empty")
	}
	if !strings.ContainsRune(h.Key, '{') {
		return fmt.Errorf("weir: key %q has no placeholder, so every request would have the same "+
			"key; write e.g. {header.X-Subscription-Key}", h.Key)
	}
	if h.Cost != "" && !strings.ContainsRune(h.Cost, '{') {
		if _, err := strconv.ParseUint(h.Cost, 10, 53); err != nil {
			return fmt.Errorf("weir: cost must be a whole number of units or a placeholder, not %q", h.Cost)
		}
	}
	return h.check()
}
