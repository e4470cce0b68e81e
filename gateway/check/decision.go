// Package check asks Weir's nodes whether a request may pass.
//
// It knows nothing of Caddy. A [Checker] stands for one set of nodes and one token: it picks the
// node that owns the key, lets checks that wait for one node travel together, leaves nodes alone
// that do not answer, and remembers refusals, never permissions.
//
//	Ask ─▶ denials ─▶ candidates (owner, then the others) ─▶ node: flight or queue ─▶ HTTP
package check

import (
	"fmt"
	"net/http"
	"time"
)

// Limits of one question; a node refuses what is longer (cluster-config/src/limits.rs).
const (
	// KeyBytesMax is the longest subscription key there can be, so a longer one is unknown.
	KeyBytesMax = 512
	// MethodBytesMax and PathBytesMax bound what is said about the request.
	MethodBytesMax = 17
	PathBytesMax   = 2048
	// UnitsMax is the greatest cost.
	UnitsMax = 1<<53 - 1
)

// Reasons of decisions that the gateway tells apart.
const (
	ReasonOK            = "ok"
	ReasonQuotaExceeded = "quota_exceeded"
	ReasonRateLimited   = "rate_limited"
	ReasonUnknownKey    = "unknown_key"
	ReasonKeyRevoked    = "key_revoked"
	ReasonSuspended     = "subscription_suspended"
)

// Question is what is asked about one request.
type Question struct {
	// Key is the subscription key as the client sent it.
	Key string
	// Method and Path let the plan choose rates and the cost; empty says nothing.
	Method, Path string
	// Cost in units, nil for what the plan says.
	Cost *uint64
	// RequestID makes asking twice safe: the same id gets the same decision and is charged once.
	RequestID string
}

// Quota is one quota's standing after the decision.
type Quota struct {
	Name      string     `json:"name"`
	Limit     *uint64    `json:"limit"`
	Used      uint64     `json:"used"`
	Pending   uint64     `json:"pending"`
	Remaining *uint64    `json:"remaining"`
	ResetAt   *time.Time `json:"resetAt"`
}

// Rate is one rate limit's standing after the decision.
type Rate struct {
	Name      string     `json:"name"`
	Limit     uint64     `json:"limit"`
	Remaining uint64     `json:"remaining"`
	ResetAt   *time.Time `json:"resetAt"`
}

// Decision is a node's answer. Decisions are shared by callers and never changed.
type Decision struct {
	Allowed        bool       `json:"allowed"`
	Reason         string     `json:"reason"`
	SubscriptionID string     `json:"subscriptionId"`
	Limit          *uint64    `json:"limit"`
	Used           uint64     `json:"used"`
	Pending        uint64     `json:"pending"`
	Remaining      *uint64    `json:"remaining"`
	PeriodStart    *time.Time `json:"periodStart"`
	ResetAt        *time.Time `json:"resetAt"`
	// RetryAfter is in whole seconds, rounded up, from Received on.
	RetryAfter uint64   `json:"retryAfter"`
	Quotas     []Quota  `json:"quotas"`
	Rate       []Rate   `json:"rate"`
	Violated   []string `json:"violated"`
	// Mode is enforced, shadow or degraded.
	Mode string `json:"mode"`
	// Received is when the answer came.
	Received time.Time `json:"-"`
}

// retryAt is when the refused request may pass at the latest.
func (d *Decision) retryAt() time.Time {
	return d.Received.Add(time.Duration(d.RetryAfter) * time.Second)
}

// RetryAfterAt is the whole seconds left at now, at least 1; 0 when waiting does not help.
func (d *Decision) RetryAfterAt(now time.Time) uint64 {
	if d.RetryAfter == 0 {
		return 0
	}
	return SecondsUntil(now, d.retryAt())
}

// SecondsUntil rounds up to whole seconds, at least 1.
func SecondsUntil(now, then time.Time) uint64 {
	left := then.Sub(now)
	if left <= time.Second {
		return 1
	}
	return uint64((left + time.Second - 1) / time.Second)
}

// UndecidedError says that no node could decide in time; the fail policy does.
type UndecidedError struct {
	// Cause is the last node's failure, nil when every node is left alone by its breaker.
	Cause error
}

func (e *UndecidedError) Error() string {
	if e.Cause == nil {
		return "no node is asked: none answered lately"
	}
	return "no node decided in time"
}

// Unwrap gives the last node's failure.
func (e *UndecidedError) Unwrap() error { return e.Cause }

// RefusedQuestionError says that a node understood the gateway and will not answer about this request,
// whoever asks. The fail policy must not decide then, or garbage would be a way past every limit.
type RefusedQuestionError struct {
	// Cause is what the node answered.
	Cause error
}

func (e *RefusedQuestionError) Error() string { return "a node refuses the question itself" }

// Unwrap gives what the node answered.
func (e *RefusedQuestionError) Unwrap() error { return e.Cause }

// statusError is an answer that is not a decision.
type statusError struct {
	status int
	code   string
}

func (e *statusError) Error() string {
	if e.code != "" {
		return fmt.Sprintf("a node answered %d (%s)", e.status, e.code)
	}
	return fmt.Sprintf("a node answered %d", e.status)
}

// question says that what was asked is wrong: any node would say the same.
func (e *statusError) question() bool { return e.status == http.StatusBadRequest }

// ours says that the gateway is wrong, most likely its token: another node would say the same.
func (e *statusError) ours() bool { return e.client() && !e.question() && !e.passing() }

// passing says that another node may answer although this one, which is well, did not.
func (e *statusError) passing() bool {
	switch e.status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	default:
		return false
	}
}

// faulty says that the node as a whole is not well, so that it helps to leave it alone.
func (e *statusError) faulty() bool {
	switch e.code {
	case "subscription_busy", "undecided", "store_unavailable", "not_found":
		// About one subscription; the node may well decide about others.
		return false
	default:
		return !e.client()
	}
}

// client says that the node is well and blames whoever asked.
func (e *statusError) client() bool { return e.status >= 400 && e.status < 500 }
