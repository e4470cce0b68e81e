package gateway

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"

	"weir/gateway/check"
	"weir/gateway/ship"
)

const (
	userAgentBytesMax = 512
	// statusClientGone is what proxies note when the client left before an answer.
	statusClientGone = 499
)

// watch sees one request go by: its sizes, its status, its end.
type watch struct {
	request  *http.Request
	eventID  string
	started  time.Time
	body     *countedBody
	recorder caddyhttp.ResponseRecorder
}

func newWatch(
	w http.ResponseWriter, r *http.Request, started time.Time, headers func(http.Header),
) *watch {
	late := &lateHeaders{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, set: headers,
	}
	watched := &watch{
		request: r, started: started,
		// Without a buffer function it never buffers: the answer streams.
		recorder: caddyhttp.NewResponseRecorder(late, nil, nil),
	}
	if r.Body != nil && r.Body != http.NoBody {
		watched.body = &countedBody{ReadCloser: r.Body}
		r.Body = watched.body
	}
	return watched
}

func (w *watch) writer() http.ResponseWriter { return w.recorder }

// event is what is known before the upstream is called: enough to report the request if the process
// is killed meanwhile.
func (w *watch) event(id uuid.UUID, question *check.Question, verdict verdict) *ship.Event {
	w.eventID = question.RequestID
	event := &ship.Event{
		ID:        id,
		Timestamp: w.started.UTC(),
		Path:      question.Path,
		Method:    question.Method,
		UserAgent: text(w.request.UserAgent(), userAgentBytesMax),
		Units:     question.Cost,
		Outcome:   ship.OutcomeAborted,
	}
	if verdict.decision != nil && verdict.decision.SubscriptionID != "" {
		event.SubscriptionID = verdict.decision.SubscriptionID
	} else {
		event.SubscriptionKey = question.Key
	}
	// Caddy has looked through trusted proxies; the address of the connection may be a proxy's.
	if ip, ok := caddyhttp.GetVar(w.request.Context(), caddyhttp.ClientIPVarKey).(string); ok {
		event.IPAddress = ip
	}
	return event
}

// finish fills in how the request ended; panicked says that the handler did not return.
func (w *watch) finish(event *ship.Event, err error, panicked bool) {
	event.ResponseTimeMs = float64(time.Since(w.started).Microseconds()) / 1000
	event.ResponseSize = int64(w.recorder.Size())
	if w.body != nil {
		event.RequestSize = w.body.read.Load()
	}
	gone := w.request.Context().Err() != nil
	event.Status = w.status(err, panicked, gone)
	event.Outcome = ship.OutcomeServed
	// A client that left after it had everything was served: only what was cut short is aborted.
	if panicked || err != nil && gone {
		event.Outcome = ship.OutcomeAborted
	}
	success := event.Outcome == ship.OutcomeServed && event.Status < http.StatusBadRequest
	event.Success = &success
}

// status is the one that was written, or else what will be: errors are written by Caddy after the
// handlers have returned.
func (w *watch) status(err error, panicked, gone bool) int {
	// Early hints and the like come before the answer; 101 is one.
	written := w.recorder.Status()
	if written >= http.StatusOK || written == http.StatusSwitchingProtocols {
		return written
	}
	var failed caddyhttp.HandlerError
	switch {
	case errors.As(err, &failed) && failed.StatusCode >= 100 && failed.StatusCode <= 599:
		return failed.StatusCode
	case gone:
		return statusClientGone
	case panicked || err != nil:
		return http.StatusInternalServerError
	default:
		return http.StatusOK
	}
}

// lateHeaders sets headers at the last moment, so that they win over an upstream's.
type lateHeaders struct {
	*caddyhttp.ResponseWriterWrapper
	set  func(http.Header)
	done bool
}

func (l *lateHeaders) WriteHeader(status int) {
	// Early hints and the like come before the answer; 101 is one.
	if !l.done && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		l.done = true
		l.set(l.Header())
	}
	l.ResponseWriterWrapper.WriteHeader(status)
}

func (l *lateHeaders) Write(data []byte) (int, error) {
	if !l.done {
		l.WriteHeader(http.StatusOK)
	}
	return l.ResponseWriterWrapper.Write(data)
}

// countedBody counts what is read of a request. A proxy may still read when its handler has returned.
type countedBody struct {
	io.ReadCloser
	read atomic.Int64
}

func (c *countedBody) Read(into []byte) (int, error) {
	n, err := c.ReadCloser.Read(into)
	c.read.Add(int64(n))
	return n, err
}

// meteredPath is the path as plans know it: without dots and double slashes, so that no spelling
// evades a plan's costs, and cut as a node cuts the event's, so that check and event agree.
func meteredPath(path string) string {
	if !strings.HasPrefix(path, "/") {
		// `OPTIONS *`, and a request line that names only the host.
		path = "/" + path
	}
	path = caddyhttp.CleanPath(path, true)
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		path = path[:end]
	}
	return text(path, check.PathBytesMax)
}

// text is what JSON can say of bytes from outside, at most so many bytes of it. Cutting comes last,
// because U+FFFD is longer than the byte that it stands for.
func text(bytes string, most int) string {
	return cut(strings.ToValidUTF8(bytes, "\uFFFD"), most)
}

// cut shortens text to at most so many bytes, at a character's edge.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}
