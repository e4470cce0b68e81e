// Package ship brings usage events to Weir: none lost, none twice.
//
// It knows nothing of Caddy. A [Sender] takes events without ever waiting, keeps them in bounded
// memory or on disk (the spool), and sends them in batches until they are taken. An event's id is
// made before its first try and never changes, so sending it again is always safe.
//
//	Begin ─▶ (spool: intent) ─ request runs ─ End ─▶ spool or memory ─▶ batch ─▶ POST ─▶ forgotten
package ship

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Outcomes of a request.
const (
	OutcomeServed  = "served"
	OutcomeDenied  = "denied"
	OutcomeAborted = "aborted"
)

// Event is one request, as `POST /api/v1/usage/events` takes it.
type Event struct {
	ID uuid.UUID `json:"id"`
	// Exactly one of the two names the subscription. The id is preferred: it keeps the secret key
	// off the disk and stays good when the key is revoked.
	SubscriptionKey string    `json:"subscription_key,omitempty"`
	SubscriptionID  string    `json:"subscription_id,omitempty"`
	Timestamp       time.Time `json:"timestamp"`
	Path            string    `json:"api_path,omitempty"`
	Method          string    `json:"method,omitempty"`
	// Status is 100 to 599, 0 when there was none.
	Status  int   `json:"status_code,omitempty"`
	Success *bool `json:"success,omitempty"`
	// ResponseTimeMs is in milliseconds.
	ResponseTimeMs float64 `json:"response_time_ms"`
	RequestSize    int64   `json:"request_size"`
	ResponseSize   int64   `json:"response_size"`
	UserAgent      string  `json:"user_agent,omitempty"`
	IPAddress      string  `json:"ip_address,omitempty"`
	// Units the gateway asked for; nil lets the plan say.
	Units   *uint64 `json:"units,omitempty"`
	Outcome string  `json:"outcome,omitempty"`
}

// encode gives the event's JSON. Its fields are plain, so that writing them cannot fail.
func (e *Event) encode() ([]byte, error) { return json.Marshal(e) }
