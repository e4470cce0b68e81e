package gateway

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"weir/gateway/check"
	"weir/gateway/internal/fakeweir"
	"weir/gateway/ship"
)

// adapt gives the JSON of the handlers that a site's Caddyfile becomes.
func adapt(t *testing.T, site string) (string, error) {
	t.Helper()
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	text, _, err := adapter.Adapt([]byte("http://127.0.0.1:0 {\n"+site+"\n}\n"), nil)
	if err != nil {
		return "", err
	}
	var read struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Handle []struct {
							Routes []struct {
								Handle json.RawMessage `json:"handle"`
							} `json:"routes"`
						} `json:"handle"`
					} `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	var handlers []string
	for _, route := range read.Apps.HTTP.Servers["srv0"].Routes {
		for _, sub := range route.Handle {
			for _, inner := range sub.Routes {
				handlers = append(handlers, string(inner.Handle))
			}
		}
	}
	return strings.Join(handlers, "\n"), nil
}

func TestTheDirectiveBecomesThisJSON(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ caddyfile, want string }{
		"short": {
			"weir {\n endpoint http://a:1\n token {env.T}\n}",
			`[{"endpoints":["http://a:1"],"handler":"weir","token":"{env.T}"}]`,
		},
		"everything": {
			`weir {
				endpoint http://a:1 http://b:2
				endpoint https://c
				token t
				key {header.X-Api-Key}
				cost {header.X-Cost}
				timeout 50ms
				fail local 10/1s
				flush 2s
				batch 500
				buffer 2000
				spool /var/lib/weir
				spool_max 1GiB
				denial_repeat 0
				coalesce off
				shadow
			}`,
			`[{"batch":500,"buffer":2000,"coalesce":false,"cost":"{http.request.header.X-Cost}",` +
				`"denial_repeat":0,"endpoints":["http://a:1","http://b:2","https://c"],` +
				`"fail":{"limit":10,"mode":"local","window":1000000000},"flush":2000000000,` +
				`"handler":"weir","key":"{http.request.header.X-Api-Key}","shadow":true,` +
				`"spool":"/var/lib/weir","spool_max":1073741824,"timeout":50000000,"token":"t"}]`,
		},
		"before what authenticates and answers": {
			"respond ok\nbasic_auth {\n u $2a$14$x\n}\nweir {\n endpoint http://a:1\n token t\n}",
			"",
		},
	} {
		got, err := adapt(t, c.caddyfile)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.want != "" && !sameJSON(t, got, c.want) {
			t.Errorf("%s: %s\nnot %s", name, got, c.want)
		}
		weir, other := strings.Index(got, `"weir"`), strings.Index(got, `"static_response"`)
		if auth := strings.Index(got, `"authentication"`); c.want == "" && (weir > auth || weir > other) {
			t.Errorf("%s: the order is %s", name, got)
		}
	}
}

func sameJSON(t *testing.T, one, other string) bool {
	t.Helper()
	normal := func(text string) string {
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		normal, _ := json.Marshal(value)
		return string(normal)
	}
	return normal(one) == normal(other)
}

func TestWhatIsWrongInTheDirectiveIsNamed(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"bogus 1":             `unrecognized option "bogus"`,
		"timeout soon":        "timeout must be a duration above 0",
		"timeout -1s":         "timeout must be a duration above 0",
		"flush 0":             "flush must be a duration above 0",
		"batch 0":             "batch must be a number above 0",
		"buffer many":         "buffer must be a number above 0",
		"fail":                "fail must be",
		"fail sometimes":      "fail must be",
		"fail local":          "fail must be",
		"fail local 10":       "UNITS/WINDOW",
		"fail local 0/1s":     "UNITS/WINDOW",
		"fail local 1/never":  "fail local must be a duration",
		"spool_max huge":      "spool_max must be a size",
		"coalesce maybe":      "coalesce must be on or off",
		"shadow on":           "wrong argument count",
		"token":               "wrong argument count",
		"key a b":             "wrong argument count",
		"endpoint":            "wrong argument count",
		"token a\n token b":   "token is given twice",
		"denial_repeat later": "denial_repeat",
	} {
		_, err := adapt(t, "weir {\n "+line+"\n}")
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
			t.Errorf("%q: %v does not say %q", line, err, want)
		}
	}
	if _, err := adapt(t, "weir /x y {\n}"); err == nil {
		t.Error("an argument beside the matcher is taken")
	}
}

// validate loads handlers as `caddy validate` does.
func validate(t *testing.T, handlers ...string) error {
	t.Helper()
	var routes []string
	for _, handler := range handlers {
		handler = `{"handler":"weir",` + strings.TrimPrefix(handler, "{")
		routes = append(routes, `{"handle":[`+strings.Replace(handler, ",}", "}", 1)+`]}`)
	}
	app := `{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[` + strings.Join(routes, ",") + `]}}}`
	return caddy.Validate(&caddy.Config{AppsRaw: caddy.ModuleMap{"http": json.RawMessage(app)}})
}

func TestAConfigurationThatCannotWorkIsRefusedAndSaysWhy(t *testing.T) {
	t.Setenv("WEIR_TEST_EMPTY", "")
	const good = `"endpoints":["http://a:1"],"token":"t"`
	for config, want := range map[string]string{
		`{}`:                                                         "endpoint is missing",
		`{"endpoints":["http://a:1"]}`:                               "token is missing",
		`{"endpoints":["a:1"],"token":"t"}`:                          "must begin with http",
		`{"endpoints":["http://"],"token":"t"}`:                      "names no host",
		`{"endpoints":["http://u:p@a"],"token":"t"}`:                 "must not hold a user",
		`{"endpoints":["http://a/api"],"token":"t"}`:                 "must end after host and port",
		`{"endpoints":["http://a"],"token":"a b"}`:                   "one word",
		`{"endpoints":["http://a"],"token":"{env.WEIR_TEST_EMPTY}"}`: "token",
		`{` + good + `,"timeout":"1h"}`:                              "timeout must be",
		`{` + good + `,"timeout":"-1s"}`:                             "timeout must be",
		`{` + good + `,"flush":"-1s"}`:                               "flush must be",
		`{` + good + `,"batch":10001}`:                               "batch must be",
		`{` + good + `,"batch":-1}`:                                  "batch must be",
		`{` + good + `,"batch":100,"buffer":99}`:                     "buffer (99)",
		`{` + good + `,"spool":"/x","spool_max":5}`:                  "spool_max must be",
		`{` + good + `,"fail":{"mode":"maybe"}}`:                     "fail must be",
		`{` + good + `,"fail":{"mode":"local"}}`:                     "fail local needs",
		`{` + good + `,"fail":{"mode":"open","limit":1}}`:            "takes no limit",
		`{` + good + `,"key":"X-Api-Key"}`:                           "has no placeholder",
		`{` + good + `,"cost":"cheap"}`:                              "cost must be",
		`{` + good + `,"denial_repeat":"-1s"}`:                       "denial_repeat must",
		`{` + good + `,"no_such_option":1}`:                          "no_such_option",
	} {
		if err := validate(t, config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v does not say %q", config, err, want)
		}
	}
}

func TestDefaultsAreThoseOfTheReadme(t *testing.T) {
	h := &Handler{Endpoints: []string{"http://a:1/"}, Token: "t"}
	h.setDefaults()
	if err := h.resolve(); err != nil {
		t.Fatal(err)
	}
	if h.endpoints[0] != "http://a:1" || h.Key != defaultKey || h.Fail.Mode != FailOpen ||
		time.Duration(h.Timeout) != 100*time.Millisecond || time.Duration(h.Flush) != 5*time.Second ||
		h.Batch != 1000 || h.Buffer != 50_000 || h.SpoolMax != 256<<20 ||
		time.Duration(*h.DenialRepeat) != time.Second || !*h.Coalesce || h.Shadow {
		t.Errorf("%+v", h)
	}
}

func TestHandlersOfOneSpoolMustAgreeOnWhereEventsGo(t *testing.T) {
	dir, err := json.Marshal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	with := func(token string) string {
		return `{"endpoints":["http://a:1"],"token":"` + token + `","spool":` + string(dir) + `}`
	}
	if err := validate(t, with("one"), with("one")); err != nil {
		t.Errorf("the same twice: %v", err)
	}
	if err := validate(t, with("one"), with("two")); err == nil || !strings.Contains(err.Error(), "share a spool") {
		t.Errorf("two tokens: %v", err)
	}
	// The next configuration may have another.
	if err := validate(t, with("two")); err != nil {
		t.Errorf("after a reload: %v", err)
	}
}

func TestHeadersTellTheStanding(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	start, reset, soon := now.Add(-time.Hour), now.Add(23*time.Hour), now.Add(1500*time.Millisecond)
	limit, left := uint64(100), uint64(7)
	decision := &check.Decision{
		Allowed: false, Reason: check.ReasonRateLimited, SubscriptionID: "s", Limit: &limit, Remaining: &left,
		PeriodStart: &start, ResetAt: &reset, RetryAfter: 2, Received: now.Add(-500 * time.Millisecond),
		Quotas: []check.Quota{
			{Name: "day", Limit: &limit, Remaining: &left, ResetAt: &reset}, {Name: "unlimited"},
		},
		Rate: []check.Rate{{Name: `a"b\é`, Limit: 5, Remaining: 0, ResetAt: &soon}},
	}
	v := decided(decision, false, now)
	header := http.Header{}
	v.setHeaders(header)
	for name, want := range map[string]string{
		"RateLimit-Policy":      `"day";q=100;w=86400, "a\"b\\?";q=5`,
		"RateLimit":             `"day";r=7;t=82800, "a\"b\\?";r=0;t=2`,
		"X-RateLimit-Limit":     "100",
		"X-RateLimit-Remaining": "7",
		"X-RateLimit-Reset":     "82800",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
	if v.status != http.StatusTooManyRequests || v.retryAfter() != 2 {
		t.Errorf("status %d, Retry-After %d", v.status, v.retryAfter())
	}
}

func TestReasonsBecomeTheseStatuses(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]int{
		"quota_exceeded": 429, "rate_limited": 429, "unknown_key": 401, "key_revoked": 401,
		"subscription_suspended": 403, "subscription_not_started": 403, "subscription_ended": 403,
		"of a later version": 403,
	} {
		v := decided(&check.Decision{Reason: reason}, false, time.Now())
		if v.passes || v.status != want {
			t.Errorf("%s: %d, not %d", reason, v.status, want)
		}
	}
}

func TestNoSpellingOfAPathEvadesThePlan(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/v1/x": "/v1/x", "/v1//x": "/v1/x", "/a/../v1/x": "/v1/x", "/v1/./x": "/v1/x", "/../v1/x": "/v1/x",
		"/v1/x?y": "/v1/x", "/a?/../v1/x": "/v1/x", "/v1/x#y": "/v1/x", "": "/",
		"/" + strings.Repeat("é", 2000): "/" + strings.Repeat("é", 1023),
		// Bytes that are no text become longer, and are cut after that.
		"/a\xffb": "/a\uFFFDb", "/" + strings.Repeat("a\xff", 1000): "/" + strings.Repeat("a\uFFFD", 511) + "a",
	} {
		if got := meteredPath(path); got != want {
			t.Errorf("%.40q became %.40q, not %.40q", path, got, want)
		}
	}
}

func TestAnAnswerStreamsAndItsHeadersWinOverTheUpstreams(t *testing.T) {
	t.Parallel()
	watched := make(chan *watch, 1)
	server := httptest.NewServer(http.HandlerFunc(func(writer http.ResponseWriter, r *http.Request) {
		w := newWatch(writer, r, time.Now(), func(h http.Header) { h.Set("RateLimit", "ours") })
		w.writer().Header().Set("RateLimit", "theirs")
		w.writer().WriteHeader(http.StatusEarlyHints)
		if w.writer().Header().Get("RateLimit") != "theirs" {
			t.Error("early hints carry our headers")
		}
		_, _ = w.request.Body.Read(make([]byte, 3))
		_, _ = w.writer().Write([]byte("answer"))
		watched <- w
	}))
	defer server.Close()
	response, err := http.Post(server.URL, "text/plain", strings.NewReader("12345"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != "answer" || response.Header.Get("RateLimit") != "ours" {
		t.Errorf("%q %v %v", body, response.Header, err)
	}
	w := <-watched
	if w.recorder.Size() != 6 || w.body.read.Load() != 3 || w.status(nil, false, false) != http.StatusOK {
		t.Errorf("size %d, read %d, status %d", w.recorder.Size(), w.body.read.Load(), w.recorder.Status())
	}
}

// fallback is a handler that lets everything pass which no node decides about.
func fallback(t *testing.T, fake *fakeweir.Server) *Handler {
	t.Helper()
	checker := check.New(check.Config{
		Endpoints: []string{fake.URL}, Token: fakeweir.Token, Timeout: 20 * time.Second, Together: true,
	})
	t.Cleanup(checker.Close)
	return &Handler{Fail: &Fail{Mode: FailOpen}, checker: checker, logger: zap.NewNop()}
}

func TestGarbageIsNotAWayPastTheLimits(t *testing.T) {
	t.Parallel()
	fake := fakeweir.New()
	defer fake.Close()
	h := fallback(t, fake)
	fake.Break(func(string) fakeweir.Fault {
		return fakeweir.Fault{Status: http.StatusBadRequest, Code: "invalid_parameter"}
	})
	for _, key := range []string{strings.Repeat("\xff", 171), strings.Repeat("\xff", 512), "ok\xc3"} {
		v := h.decide(&check.Question{Key: key, Method: "GET", Path: "/", RequestID: "1"})
		if v.passes || v.status != http.StatusUnauthorized || v.own != check.ReasonUnknownKey {
			t.Errorf("%.12q: %+v", key, v)
		}
	}
	if trips := len(fake.Trips()); trips != 0 {
		t.Errorf("a node was asked %d times about keys that cannot be", trips)
	}
	v := h.decide(&check.Question{Key: "key", Method: "GET", Path: "/", RequestID: "1"})
	if v.passes || v.status != http.StatusBadRequest || v.reason() != reasonRefused {
		t.Fatalf("a refused question: %+v", v)
	}
	recorder := httptest.NewRecorder()
	watch := newWatch(recorder, httptest.NewRequest("GET", "/", nil), time.Now(), func(http.Header) {})
	if err := v.respond(watch); err != nil {
		t.Fatal(err)
	}
	var problem problem
	if err := json.Unmarshal(recorder.Body.Bytes(), &problem); err != nil || recorder.Code != 400 ||
		recorder.Header().Get("Content-Type") != "application/problem+json" || problem.Code != reasonRefused {
		t.Errorf("%d %v %s %v", recorder.Code, recorder.Header(), recorder.Body, err)
	}
	// The gateway's own token is no client's fault.
	fake.Break(func(string) fakeweir.Fault { return fakeweir.Fault{Status: http.StatusForbidden} })
	if v := h.decide(&check.Question{Key: "key", RequestID: "2"}); !v.passes || v.mode != FailOpen {
		t.Errorf("a refused token: %+v", v)
	}
}

// running loads a configuration as `caddy run` and `caddy reload` do. Handlers share one spool.
func running(t *testing.T, spool, listen string, endpoints ...string) error {
	t.Helper()
	var routes []any
	for _, endpoint := range endpoints {
		routes = append(routes, map[string]any{"handle": []any{map[string]any{
			"handler": "weir", "endpoints": []string{endpoint}, "token": fakeweir.Token,
			"spool": spool, "flush": "20ms",
		}}})
	}
	text, err := json.Marshal(map[string]any{
		"admin": map[string]any{"disabled": true, "config": map[string]any{"persist": false}},
		"apps": map[string]any{"http": map[string]any{"servers": map[string]any{"s": map[string]any{
			"listen": []string{listen}, "routes": routes,
		}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return caddy.Load(text, true)
}

func TestARefusedConfigurationChangesNothingThatRuns(t *testing.T) {
	fake := fakeweir.New()
	defer fake.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	const away = "http://127.0.0.1:1"
	spool := t.TempDir()
	if err := running(t, spool, "127.0.0.1:0", fake.URL); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
		// Its sender lives on for a moment and writes to the spool.
		ship.Drain(10 * time.Second)
	}()
	var sender *ship.Sender
	senders.Range(func(key, value any) bool {
		if key == "spool "+spool {
			sender = value.(pooledSender).Sender
		}
		return sender == nil
	})
	sent := 0
	arrives := func() bool {
		sender.Put(&ship.Event{ID: uuid.Must(uuid.NewV7()), Timestamp: time.Now().UTC(), Path: "/", Method: "GET"})
		sent++
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if events, _ := fake.Ledger(); len(events) == sent {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	}
	if !arrives() {
		t.Fatal("nothing is sent")
	}
	// Refused while it is read.
	if err := running(t, spool, "127.0.0.1:0", away, "not a URL"); err == nil {
		t.Fatal("a wrong endpoint is taken")
	}
	if !arrives() {
		t.Fatal("a configuration that was refused redirects events")
	}
	// Refused while it starts. Caddy starts apps in any order, so this is tried more than once.
	for range 8 {
		if err := running(t, spool, taken.Addr().String(), away); err == nil {
			t.Fatal("an address that is taken is taken again")
		}
		if !arrives() {
			t.Fatal("a configuration that could not start redirects events")
		}
	}
	// One that is taken does; what waits goes there as soon as the next names it again.
	if err := running(t, spool, "127.0.0.1:0", away); err != nil {
		t.Fatal(err)
	}
	sender.Put(&ship.Event{ID: uuid.Must(uuid.NewV7()), Timestamp: time.Now().UTC(), Path: "/", Method: "GET"})
	if events, _ := fake.Ledger(); len(events) != sent {
		t.Errorf("%d events arrived, %d were sent before the change", len(events), sent)
	}
	sent++
	if err := running(t, spool, "127.0.0.1:0", fake.URL); err != nil {
		t.Fatal(err)
	}
	if !arrives() {
		t.Error("what waited is not sent after the second change")
	}
}

func TestWhatAShadowLetsThroughIsReported(t *testing.T) {
	t.Parallel()
	fake := fakeweir.New()
	h := fallback(t, fake)
	fake.Close()
	h.Shadow = true
	h.Fail = &Fail{Mode: FailLocal, Limit: 1, Window: caddy.Duration(time.Hour)}
	h.buckets = check.NewBuckets(1, time.Hour)
	for i := range 2 {
		v := h.decide(&check.Question{Key: "key", RequestID: strconv.Itoa(i)})
		if !v.passes || !v.recordable() {
			t.Errorf("request %d beyond a limit of 1: %+v", i+1, v)
		}
	}
	// Nobody is there to report these for.
	for _, key := range []string{"", "\xff"} {
		if v := h.decide(&check.Question{Key: key}); !v.passes || v.recordable() {
			t.Errorf("key %q: %+v", key, v)
		}
	}
}

func TestEarlyHintsAreNotTheAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		written  int
		err      error
		panicked bool
		want     int
	}{
		{http.StatusEarlyHints, nil, true, http.StatusInternalServerError},
		{http.StatusEarlyHints, caddyhttp.Error(http.StatusBadGateway, nil), false, http.StatusBadGateway},
		{http.StatusProcessing, nil, false, http.StatusOK},
		{http.StatusSwitchingProtocols, nil, false, http.StatusSwitchingProtocols},
		{http.StatusTeapot, nil, true, http.StatusTeapot},
	} {
		watch := newWatch(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), time.Now(), func(http.Header) {})
		watch.writer().WriteHeader(c.written)
		if got := watch.status(c.err, c.panicked, false); got != c.want {
			t.Errorf("%d, then %v, panicked %v: %d, not %d", c.written, c.err, c.panicked, got, c.want)
		}
	}
}
