package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"weir/gateway/check"
)

// Reasons that the gateway gives by itself.
const (
	reasonMissingKey = "missing_key"
	reasonUndecided  = "undecided"
	reasonRefused    = "invalid_request"
)

// Who decided, beside the modes of nodes and the fail policy.
const (
	modeEnforced = "enforced"
	modeCached   = "cached"
	modeShadow   = "shadow"
)

// verdict is what happens to a request: a node's decision, or the gateway's own.
type verdict struct {
	passes bool
	at     time.Time
	// decision is nil when the gateway decided by itself; own is its reason then.
	decision *check.Decision
	own      string
	// mode is enforced, shadow, degraded, cached, open, closed or local.
	mode string
	// status answers a request that does not pass.
	status int
	// wait is what the gateway's own refusal asks for.
	wait time.Duration
}

func decided(decision *check.Decision, cached bool, now time.Time) verdict {
	v := verdict{passes: decision.Allowed, at: now, decision: decision, mode: decision.Mode}
	if cached {
		v.mode = modeCached
	}
	switch decision.Reason {
	case check.ReasonUnknownKey, check.ReasonKeyRevoked:
		v.status = http.StatusUnauthorized
	case check.ReasonQuotaExceeded, check.ReasonRateLimited:
		v.status = http.StatusTooManyRequests
	default:
		// Suspended, not started, ended, and what later versions may add.
		v.status = http.StatusForbidden
	}
	return v
}

func (v *verdict) reason() string {
	if v.decision != nil {
		return v.decision.Reason
	}
	return v.own
}

func (v *verdict) word() string {
	if v.passes {
		return "allowed"
	}
	return "denied"
}

// recordable says whether there may be a subscription to report the request for.
func (v *verdict) recordable() bool {
	if v.decision != nil {
		return v.decision.SubscriptionID != ""
	}
	return v.own != reasonMissingKey && v.own != check.ReasonUnknownKey
}

// retryAfter is in whole seconds, 0 when waiting does not help.
func (v *verdict) retryAfter() uint64 {
	switch {
	case v.decision != nil && v.status == http.StatusTooManyRequests:
		return max(1, v.decision.RetryAfterAt(v.at))
	case v.decision == nil && v.wait > 0:
		return check.SecondsUntil(v.at, v.at.Add(v.wait))
	default:
		return 0
	}
}

// publish sets the placeholders that later handlers, logs and error pages may use.
func (v *verdict) publish(repl *caddy.Replacer, eventID string) {
	set := func(name string, value any) { repl.Set("http.weir."+name, value) }
	set("allowed", v.passes)
	set("reason", v.reason())
	set("mode", v.mode)
	set("event_id", eventID)
	set("retry_after", v.retryAfter())
	var limit, remaining, used, reset, subscription any = "", "", "", "", ""
	if d := v.decision; d != nil {
		subscription, used = d.SubscriptionID, d.Used
		if d.Limit != nil {
			limit = *d.Limit
		}
		if d.Remaining != nil {
			remaining = *d.Remaining
		}
		if d.ResetAt != nil {
			reset = d.ResetAt.UTC().Format(time.RFC3339)
		}
	}
	set("limit", limit)
	set("remaining", remaining)
	set("used", used)
	set("reset", reset)
	set("subscription", subscription)
}

// setHeaders tells the client where it stands (draft-ietf-httpapi-ratelimit-headers, and the older
// X-RateLimit form with Reset in seconds from now). They replace an upstream's of the same name.
func (v *verdict) setHeaders(header http.Header) {
	d := v.decision
	if d == nil || d.SubscriptionID == "" {
		return
	}
	var policy, standing []string
	for i := range d.Quotas {
		quota := &d.Quotas[i]
		if quota.Limit == nil || quota.Remaining == nil {
			continue
		}
		item := fmt.Sprintf("%s;q=%d", quoted(quota.Name), *quota.Limit)
		// The window of the first quota is known; others tell only when they end.
		if i == 0 && d.PeriodStart != nil && d.ResetAt != nil {
			item += fmt.Sprintf(";w=%d", int64(d.ResetAt.Sub(*d.PeriodStart)/time.Second))
		}
		policy = append(policy, item)
		standing = append(standing, v.standing(quota.Name, *quota.Remaining, quota.ResetAt))
	}
	for i := range d.Rate {
		rate := &d.Rate[i]
		policy = append(policy, fmt.Sprintf("%s;q=%d", quoted(rate.Name), rate.Limit))
		standing = append(standing, v.standing(rate.Name, rate.Remaining, rate.ResetAt))
	}
	if len(policy) > 0 {
		header.Set("RateLimit-Policy", strings.Join(policy, ", "))
		header.Set("RateLimit", strings.Join(standing, ", "))
	}
	if d.Limit != nil && d.Remaining != nil && d.ResetAt != nil {
		header.Set("X-RateLimit-Limit", strconv.FormatUint(*d.Limit, 10))
		header.Set("X-RateLimit-Remaining", strconv.FormatUint(*d.Remaining, 10))
		header.Set("X-RateLimit-Reset", strconv.FormatUint(v.secondsTo(*d.ResetAt), 10))
	}
}

func (v *verdict) standing(name string, remaining uint64, reset *time.Time) string {
	item := fmt.Sprintf("%s;r=%d", quoted(name), remaining)
	if reset != nil {
		item += fmt.Sprintf(";t=%d", v.secondsTo(*reset))
	}
	return item
}

// secondsTo is 0 for what is over.
func (v *verdict) secondsTo(then time.Time) uint64 {
	if !then.After(v.at) {
		return 0
	}
	return check.SecondsUntil(v.at, then)
}

// quoted is a structured field's string: visible ASCII, quote and backslash escaped.
func quoted(name string) string {
	var text strings.Builder
	text.WriteByte('"')
	for _, char := range name {
		switch {
		case char == '"' || char == '\\':
			text.WriteByte('\\')
			text.WriteRune(char)
		case char < 0x20 || char > 0x7e:
			text.WriteByte('?')
		default:
			text.WriteRune(char)
		}
	}
	text.WriteByte('"')
	return text.String()
}

// problem is the body of a refusal (RFC 9457).
type problem struct {
	Type       string   `json:"type"`
	Title      string   `json:"title"`
	Status     int      `json:"status"`
	Detail     string   `json:"detail"`
	Code       string   `json:"code"`
	RequestID  string   `json:"requestId"`
	Violated   []string `json:"violated-policies,omitempty"`
	ResetAt    string   `json:"resetAt,omitempty"`
	RetryAfter uint64   `json:"retryAfter,omitempty"`
}

const problemTypes = "https://iana.org/assignments/http-problem-types#"

func (v *verdict) problem(eventID string) problem {
	p := problem{
		Type: "about:blank", Status: v.status, Code: v.reason(), RequestID: eventID,
		Title: http.StatusText(v.status), RetryAfter: v.retryAfter(),
	}
	switch v.reason() {
	case check.ReasonQuotaExceeded:
		p.Type, p.Title = problemTypes+"quota-exceeded", "Quota exceeded"
		p.Detail = "The subscription's quota for this period is used up."
	case check.ReasonRateLimited:
		p.Type, p.Title = problemTypes+"quota-exceeded", "Too many requests"
		p.Detail = "The subscription sends requests faster than its plan allows."
	case reasonMissingKey:
		p.Detail = "The request carries no subscription key."
	case check.ReasonUnknownKey, check.ReasonKeyRevoked:
		p.Detail = "The subscription key is not valid."
	case reasonUndecided:
		p.Type, p.Title = problemTypes+"temporary-reduced-capacity", "Temporarily unavailable"
		p.Detail = "Whether the request may pass could not be decided in time."
	case reasonRefused:
		p.Detail = "Whether the request may pass cannot be asked: its key, method or path is malformed."
	case check.ReasonSuspended:
		p.Detail = "The subscription is suspended."
	default:
		p.Detail = "The subscription may not be used now."
	}
	if d := v.decision; d != nil {
		p.Violated = d.Violated
		if v.status == http.StatusTooManyRequests && d.ResetAt != nil {
			p.ResetAt = d.ResetAt.UTC().Format(time.RFC3339)
		}
	}
	return p
}

// respond refuses the request. When the server has error routes (`handle_errors`) they write the
// answer, with the headers already set; otherwise it is a problem document.
func (v *verdict) respond(watch *watch) error {
	header := watch.writer().Header()
	header.Set("Cache-Control", "no-store")
	if seconds := v.retryAfter(); seconds > 0 {
		header.Set("Retry-After", strconv.FormatUint(seconds, 10))
	}
	if v.status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "ApiKey")
	}
	cause := fmt.Errorf("weir refused the request: %s", v.reason())
	server, _ := watch.request.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server != nil && server.Errors != nil && len(server.Errors.Routes) > 0 {
		// The error routes write past this handler, so the headers are set now.
		v.setHeaders(header)
		return caddyhttp.Error(v.status, cause)
	}
	body, err := json.Marshal(v.problem(watch.eventID))
	if err != nil {
		return caddyhttp.Error(v.status, cause)
	}
	header.Set("Content-Type", "application/problem+json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	watch.writer().WriteHeader(v.status)
	if watch.request.Method != http.MethodHead {
		// A client that left does not change what was decided.
		_, _ = watch.writer().Write(body)
	}
	return nil
}
