package check

import (
	"sync"
	"time"
)

// bucketsMax bounds the memory of local buckets: about 200 bytes each. A key that is forgotten
// starts with a full bucket.
const bucketsMax = 100_000

// Buckets are the local token buckets of `fail local N/WINDOW`: one a key, each full at first.
type Buckets struct {
	limit  float64
	window time.Duration
	mu     sync.Mutex
	known  generations[string, bucket]
}

type bucket struct {
	tokens float64
	at     time.Time
}

// NewBuckets makes buckets of limit tokens that fill in one window.
func NewBuckets(limit uint64, window time.Duration) *Buckets {
	return &Buckets{
		limit: float64(limit), window: window, known: newGenerations[string, bucket](bucketsMax),
	}
}

// Take takes cost tokens of the key's bucket, or says how long until they will be there; a cost
// above the limit never is, and waits a window.
func (b *Buckets) Take(key string, cost uint64, now time.Time) (ok bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one, found := b.known.get(key)
	if !found {
		one = bucket{tokens: b.limit, at: now}
	}
	// A clock that went backwards gives nothing.
	if passed := now.Sub(one.at); passed > 0 {
		filled := b.limit * float64(passed) / float64(b.window)
		one.tokens = min(b.limit, one.tokens+filled)
		one.at = now
	}
	want := float64(cost)
	ok = want <= one.tokens
	switch {
	case ok:
		one.tokens -= want
	case want > b.limit:
		wait = b.window
	default:
		wait = time.Duration((want - one.tokens) / b.limit * float64(b.window))
	}
	b.known.put(key, one)
	return ok, wait
}
