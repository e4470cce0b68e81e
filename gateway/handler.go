// Package gateway is a Caddy module that meters every request with Weir.
//
// Before the upstream is called it asks a node whether the subscription may pass; afterwards it
// reports what happened, once, whatever happens to the request, the node or the process.
//
//	request ─▶ key ─▶ check.Checker ─┬─ refused ─▶ 429 401 403 503 ─┐
//	                                 └─ allowed ─▶ next handler ────┴─▶ ship.Sender
//
// Files: config (options), caddyfile (syntax), handler (life cycle and the way of a request),
// respond (headers and refusals), watch (what is measured), pool (what outlives a reload), app
// (start). Packages: check asks, ship reports, metrics counts; neither knows Caddy.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"weir/gateway/check"
	"weir/gateway/metrics"
	"weir/gateway/ship"
)

func init() {
	caddy.RegisterModule(Handler{})
	caddy.RegisterModule(App{})
	httpcaddyfile.RegisterHandlerDirective("weir", parseDirective)
	// Before anything that authenticates or answers; whoever takes the key from a login writes
	// `order weir after forward_auth`.
	httpcaddyfile.RegisterDirectiveOrder("weir", httpcaddyfile.Before, "basic_auth")
	caddy.OnExit(func(context.Context) { ship.Drain(drainTime) })
}

// Handler checks and meters the requests of a route. Options that are left out have the defaults
// of config.go.
type Handler struct {
	// Endpoints are base URLs of nodes, e.g. http://127.0.0.1:8080. Placeholders that do not
	// depend on the request are replaced when the configuration is loaded.
	Endpoints []string `json:"endpoints,omitempty"`
	// Token is of scope gateway, e.g. {env.WEIR_TOKEN} or {file./run/secrets/weir}.
	Token string `json:"token,omitempty"`
	// Key is where a request's subscription key is.
	Key string `json:"key,omitempty"`
	// Cost of a request in units: a number or a placeholder; empty lets the plan say.
	Cost string `json:"cost,omitempty"`
	// Timeout bounds what a check may add to a request.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// Fail is the policy when no node decides in time.
	Fail *Fail `json:"fail,omitempty"`
	// Flush is how long an event waits at most before it is sent.
	Flush caddy.Duration `json:"flush,omitempty"`
	// Batch is how many events are sent at once.
	Batch int `json:"batch,omitempty"`
	// Buffer is how many events memory holds; more are dropped and counted.
	Buffer int `json:"buffer,omitempty"`
	// Spool is a folder that keeps events over kill -9 and long outages.
	Spool string `json:"spool,omitempty"`
	// SpoolMax bounds the spool in bytes; beyond, memory takes over.
	SpoolMax int64 `json:"spool_max,omitempty"`
	// DenialRepeat is how long a refusal is repeated without asking again; 0 asks every time.
	DenialRepeat *caddy.Duration `json:"denial_repeat,omitempty"`
	// Coalesce lets checks for one node share a round trip; true unless set to false.
	Coalesce *bool `json:"coalesce,omitempty"`
	// Shadow lets every request through and only tells what would have been refused.
	Shadow bool `json:"shadow,omitempty"`

	endpoints []string
	token     string
	spool     string
	logger    *zap.Logger
	checker   *check.Checker
	sender    *ship.Sender
	buckets   *check.Buckets
	// What Cleanup gives back; empty when Provision did not come so far.
	checkerKey, senderKey string
}

// CaddyModule tells Caddy of the module.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.weir",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets the handler up. It speaks with no node and opens no file, because a configuration
// may be loaded only to be validated.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.setDefaults()
	if err := h.check(); err != nil {
		return err
	}
	if err := h.resolve(); err != nil {
		return err
	}
	if err := metrics.Register(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("weir: registering metrics: %w", err)
	}
	if h.Fail.Mode == FailLocal {
		h.buckets = check.NewBuckets(h.Fail.Limit, time.Duration(h.Fail.Window))
	}
	target := fingerprint(append([]string{h.token}, h.endpoints...)...)
	if err := h.acquireChecker(target); err != nil {
		return err
	}
	return h.acquireSender(ctx, target)
}

func (h *Handler) acquireChecker(target string) error {
	key := fingerprint(target, time.Duration(h.Timeout).String(),
		time.Duration(*h.DenialRepeat).String(), strconv.FormatBool(*h.Coalesce))
	found, _, err := checkers.LoadOrNew(key, func() (caddy.Destructor, error) {
		return pooledChecker{check.New(check.Config{
			Endpoints: h.endpoints, Token: h.token,
			Timeout:      time.Duration(h.Timeout),
			DenialRepeat: time.Duration(*h.DenialRepeat),
			Together:     *h.Coalesce,
			Logger:       h.logger,
		})}, nil
	})
	if err != nil {
		return fmt.Errorf("weir: %w", err)
	}
	h.checkerKey, h.checker = key, found.(pooledChecker).Checker
	return nil
}

func (h *Handler) acquireSender(ctx caddy.Context, target string) error {
	// A spool belongs to its folder, so that what is in it survives a change of token or nodes.
	key := "memory " + target
	if h.spool != "" {
		key = "spool " + h.spool
	}
	destination := ship.Destination{Endpoints: h.endpoints, Token: h.token}
	tuning := ship.Tuning{
		Flush: time.Duration(h.Flush), Batch: h.Batch, Buffer: h.Buffer, SpoolBytesMax: h.SpoolMax,
	}
	found, _, err := senders.LoadOrNew(key, func() (caddy.Destructor, error) {
		return pooledSender{ship.New(h.spool, destination, tuning, h.logger)}, nil
	})
	if err != nil {
		return fmt.Errorf("weir: %w", err)
	}
	sender := found.(pooledSender).Sender
	h.senderKey, h.sender = key, sender
	app, err := ctx.App(appName)
	if err != nil {
		return fmt.Errorf("weir: %w", err)
	}
	// The sender may be working for the configuration that this one replaces, if it is not refused.
	return app.(*App).add(use{sender: sender, target: target, apply: func() func() {
		return sender.Retune(destination, tuning, h.logger)
	}})
}

// Cleanup gives back what Provision took; also when that failed half-way.
func (h *Handler) Cleanup() error {
	var failures []error
	if h.senderKey != "" {
		_, err := senders.Delete(h.senderKey)
		failures = append(failures, err)
		h.senderKey = ""
	}
	if h.checkerKey != "" {
		_, err := checkers.Delete(h.checkerKey)
		failures = append(failures, err)
		h.checkerKey = ""
	}
	return errors.Join(failures...)
}

// ServeHTTP is the way of one request.
func (h *Handler) ServeHTTP(
	w http.ResponseWriter, r *http.Request, next caddyhttp.Handler,
) error {
	h.sender.Enter()
	defer h.sender.Leave()
	started := time.Now()
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	key := strings.TrimSpace(repl.ReplaceAll(h.Key, ""))
	cost, err := h.costOf(repl)
	if err != nil {
		return caddyhttp.Error(http.StatusBadRequest, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("making an event id: %w", err))
	}
	question := check.Question{
		Key: key, Method: cut(r.Method, check.MethodBytesMax), Path: meteredPath(r.URL.Path),
		Cost: cost, RequestID: id.String(),
	}
	verdict := h.decide(&question)
	metrics.CheckSeconds.Observe(time.Since(started).Seconds())
	metrics.Decisions.WithLabelValues(verdict.word(), verdict.reason(), verdict.mode).Inc()
	verdict.publish(repl, question.RequestID)

	watch := newWatch(w, r, started, func(header http.Header) { verdict.setHeaders(header) })
	event := watch.event(id, &question, verdict)
	if verdict.passes {
		return h.forward(watch, event, verdict, next)
	}
	return h.refuse(watch, event, verdict)
}

// forward calls the upstream and reports the request, however it ends.
func (h *Handler) forward(
	watch *watch, event *ship.Event, verdict verdict, next caddyhttp.Handler,
) (err error) {
	// An unknown key that a shadow let through belongs to no subscription.
	if !verdict.recordable() {
		return next.ServeHTTP(watch.writer(), watch.request)
	}
	ticket := h.sender.Begin(event)
	ended := false
	defer func() {
		watch.finish(event, err, !ended)
		h.sender.End(ticket, event)
	}()
	err = next.ServeHTTP(watch.writer(), watch.request)
	// Not reached by a panic, which passes through with its stack unharmed.
	ended = true
	return err
}

// refuse answers in the upstream's place and reports that.
func (h *Handler) refuse(watch *watch, event *ship.Event, verdict verdict) error {
	err := verdict.respond(watch)
	if verdict.recordable() {
		watch.finish(event, err, false)
		event.Outcome = ship.OutcomeDenied
		h.sender.Put(event)
	}
	return err
}

// costOf evaluates the cost of a request; nil lets the plan say.
func (h *Handler) costOf(repl *caddy.Replacer) (*uint64, error) {
	if h.Cost == "" {
		return nil, nil
	}
	text := strings.TrimSpace(repl.ReplaceAll(h.Cost, ""))
	if text == "" {
		return nil, nil
	}
	cost, err := strconv.ParseUint(text, 10, 64)
	if err != nil || cost > check.UnitsMax {
		return nil, fmt.Errorf("the request's cost must be a whole number of units, not %q", text)
	}
	return &cost, nil
}

// decide asks, or lets the fail policy decide.
func (h *Handler) decide(question *check.Question) verdict {
	verdict := h.decideStrictly(question)
	if h.Shadow && !verdict.passes {
		verdict.passes, verdict.mode = true, modeShadow
	}
	return verdict
}

func (h *Handler) decideStrictly(question *check.Question) verdict {
	if question.Key == "" {
		return verdict{at: time.Now(), status: http.StatusUnauthorized, own: reasonMissingKey, mode: modeEnforced}
	}
	// JSON would turn bytes that are no text into others, three for each, and ask about another key.
	if len(question.Key) > check.KeyBytesMax || !utf8.ValidString(question.Key) {
		return verdict{
			at: time.Now(), status: http.StatusUnauthorized, own: check.ReasonUnknownKey, mode: modeEnforced,
		}
	}
	decision, cached, err := h.checker.Ask(question)
	now := time.Now()
	if err == nil {
		return decided(decision, cached, now)
	}
	var refused *check.RefusedQuestionError
	if errors.As(err, &refused) {
		h.logger.Warn("a node refuses to be asked about a request", zap.Error(refused.Cause))
		return verdict{at: now, status: http.StatusBadRequest, own: reasonRefused, mode: modeEnforced}
	}
	h.logger.Debug("no node decided", zap.Error(err), zap.NamedError("cause", errors.Unwrap(err)))
	verdict := verdict{at: now, own: reasonUndecided, mode: h.Fail.Mode}
	switch h.Fail.Mode {
	case FailClosed:
		verdict.status, verdict.wait = http.StatusServiceUnavailable, time.Second
	case FailLocal:
		cost := uint64(1)
		if question.Cost != nil {
			cost = *question.Cost
		}
		verdict.passes, verdict.wait = h.buckets.Take(question.Key, cost, now)
		if !verdict.passes {
			verdict.status, verdict.own = http.StatusTooManyRequests, check.ReasonRateLimited
		}
	default:
		verdict.passes = true
	}
	return verdict
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
