package check

import (
	"sync"
	"time"
)

const (
	// denialsMax bounds the memory that clients can fill with refusals: about 1 KB each.
	denialsMax = 50_000
	// keyDenialKept is how long a refusal without a reset time outlives the nodes' silence.
	keyDenialKept = time.Hour
)

// generations is a bounded map that forgets what was not looked up lately: when the young half is
// full it becomes the old half, and the old one is dropped. Constant time, no list.
type generations[K comparable, V any] struct {
	max        int
	young, old map[K]V
}

func newGenerations[K comparable, V any](max int) generations[K, V] {
	return generations[K, V]{max: max, young: map[K]V{}, old: map[K]V{}}
}

func (g *generations[K, V]) get(key K) (V, bool) {
	if value, ok := g.young[key]; ok {
		return value, true
	}
	value, ok := g.old[key]
	if ok {
		g.put(key, value)
	}
	return value, ok
}

func (g *generations[K, V]) put(key K, value V) {
	if _, ok := g.young[key]; !ok && len(g.young) >= g.max/2 {
		g.old, g.young = g.young, make(map[K]V, g.max/4)
	}
	delete(g.old, key)
	g.young[key] = value
}

func (g *generations[K, V]) remove(key K) {
	delete(g.young, key)
	delete(g.old, key)
}

func (g *generations[K, V]) len() int { return len(g.young) + len(g.old) }

// asked tells questions apart whose answers may differ: another path may have another cost or rate.
type asked struct {
	key, method, path string
	cost              uint64
	costed            bool
}

func askedBy(q *Question) asked {
	a := asked{key: q.Key, method: q.Method, path: q.Path}
	if q.Cost != nil {
		a.cost, a.costed = *q.Cost, true
	}
	return a
}

// denials remembers refusals. For `repeat` a refusal is repeated without asking, so that a client
// that hammers costs the nodes one check each `repeat`, and a raised limit is seen as soon. Until
// it ends by itself it also stands while no node answers: who was over the quota stays over it
// whatever the fail policy says. An allowed answer is never kept.
type denials struct {
	repeat time.Duration
	mu     sync.Mutex
	known  generations[asked, *Decision]
}

func newDenials(repeat time.Duration) *denials {
	return &denials{repeat: repeat, known: newGenerations[asked, *Decision](denialsMax)}
}

// note takes in an answer.
func (d *denials) note(q *Question, decision *Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if decision.Allowed {
		if d.known.len() > 0 {
			d.known.remove(askedBy(q))
		}
		return
	}
	d.known.put(askedBy(q), decision)
}

// fresh is the refusal that may be repeated without asking.
func (d *denials) fresh(q *Question, now time.Time) *Decision {
	decision := d.find(q)
	if decision == nil {
		return nil
	}
	until := decision.Received.Add(d.repeat)
	if decision.Reason == ReasonRateLimited || decision.RetryAfter > 0 {
		// Rounded up by the node: a second earlier is certainly not too late.
		sure := decision.retryAt().Add(-time.Second)
		if sure.Before(until) {
			until = sure
		}
	}
	if now.Before(until) {
		return decision
	}
	return nil
}

// standing is the refusal that still holds while nobody can be asked.
func (d *denials) standing(q *Question, now time.Time) *Decision {
	decision := d.find(q)
	if decision == nil {
		return nil
	}
	until := decision.Received.Add(keyDenialKept)
	if decision.RetryAfter > 0 {
		until = decision.retryAt()
	}
	if now.Before(until) {
		return decision
	}
	return nil
}

func (d *denials) find(q *Question) *Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known.len() == 0 {
		return nil
	}
	decision, _ := d.known.get(askedBy(q))
	return decision
}
