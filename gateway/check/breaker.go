package check

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// failuresMax in a row open the breaker: fewer would open it for one lost packet's sake, more
	// would make more requests wait for a dead node.
	failuresMax = 5
	// A node that is left alone is looked at after probeAfterMin, then ever more rarely.
	probeAfterMin = 250 * time.Millisecond
	probeAfterMax = 5 * time.Second
)

// breaker leaves a node alone that does not answer.
//
//	closed ── 5 failures in a row ──▶ open ── a probe succeeds ──▶ trial ── success ──▶ closed
//	                                   ▲──────────── one failure ─────┘
//
// While it is open no request waits for the node: a probe in the background finds out when it is
// back, so that even the first request after an outage does not pay for trying.
type breaker struct {
	mu       sync.Mutex
	failures int
	open     bool
	trial    bool
	after    time.Duration
	// probe is told to look again after a time, once each time the breaker opens.
	probe func(after time.Duration)
}

// allows says whether the node may be asked.
func (b *breaker) allows() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.open
}

// succeeded takes in an answer to a check.
func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open {
		return
	}
	b.failures, b.trial, b.after = 0, false, 0
}

// failed takes in a check that was not answered; it says whether that opened the breaker.
func (b *breaker) failed() bool {
	b.mu.Lock()
	b.failures++
	opens := !b.open && (b.trial || b.failures >= failuresMax)
	if opens {
		b.open, b.trial = true, false
		// Doubled each time a trial failed, so that a node whose probe is well and whose checks
		// are not costs ever fewer requests.
		b.after = min(max(2*b.after, probeAfterMin), probeAfterMax)
	}
	after := jittered(b.after)
	b.mu.Unlock()
	if opens {
		b.probe(after)
	}
	return opens
}

// probed takes in what a probe saw; when the node is still away it says how long to wait.
func (b *breaker) probed(well bool) (again time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if well {
		b.open, b.trial, b.failures = false, true, 0
		return 0
	}
	b.after = min(2*b.after, probeAfterMax)
	return jittered(b.after)
}

// jittered spreads gateways that lost the same node at the same moment: 75 to 125 %.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2))
}
