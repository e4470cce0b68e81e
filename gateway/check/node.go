package check

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"weir/gateway/metrics"
)

const (
	// batchMax checks travel together: an answer stays under 256 KB, and a slow item holds up no
	// more than these.
	batchMax = 256
	// flightsMax batches may be on their way to one node. One is the rule; more start only when
	// the one takes long (see overtakeShare).
	flightsMax = 8
	// A queue waits no longer than the time-out divided by this for the flight before it.
	overtakeShare = 4
)

var errWaitedTooLong = errors.New("no answer in time")

// waiting is a check that was handed to a node.
type waiting struct {
	question *Question
	deadline time.Time
	// done has room for one answer, so that a flight never waits for a caller who left.
	done chan answer
}

// node is one endpoint.
//
// A check goes out at once when nothing is on its way to the node; otherwise it waits for that
// answer and then travels with all others that waited: with many callers a round trip carries
// many checks, with one caller nothing waits.
//
//	idle ── check ──▶ flying ── check ──▶ flying, queued ── answer ──▶ flying (the whole queue)
type node struct {
	wire
	timeout  time.Duration
	together bool
	breaker  breaker
	ctx      context.Context
	logger   *zap.Logger
	// learn takes in who decided about a key.
	learn func(at *node, key string, who owner)

	mu      sync.Mutex
	flights int
	queue   []*waiting
	late    *time.Timer
}

// ask gives the node's decision, or an error after wait at the latest.
func (n *node) ask(q *Question, wait time.Duration) (*Decision, error) {
	if !n.together {
		a := n.flySingle(q, wait)
		return a.decision, a.err
	}
	w := &waiting{question: q, deadline: time.Now().Add(wait), done: make(chan answer, 1)}
	n.mu.Lock()
	if n.flights == 0 {
		n.flights++
		n.mu.Unlock()
		go n.fly([]*waiting{w})
	} else {
		n.queue = append(n.queue, w)
		if len(n.queue) == 1 {
			n.late = time.AfterFunc(n.timeout/overtakeShare, n.overtake)
		}
		n.mu.Unlock()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case a := <-w.done:
		return a.decision, a.err
	case <-timer.C:
		return nil, errWaitedTooLong
	}
}

// overtake sends what waits although an earlier flight did not come back.
func (n *node) overtake() {
	n.mu.Lock()
	if len(n.queue) == 0 {
		n.mu.Unlock()
		return
	}
	if n.flights >= flightsMax {
		n.late = time.AfterFunc(n.timeout/overtakeShare, n.overtake)
		n.mu.Unlock()
		return
	}
	n.flights++
	next := n.takeQueue()
	n.mu.Unlock()
	n.fly(next)
}

// takeQueue takes the next batch. Called with the lock held.
func (n *node) takeQueue() []*waiting {
	if n.late != nil {
		n.late.Stop()
		n.late = nil
	}
	next := n.queue
	if len(next) <= batchMax {
		n.queue = nil
		return next
	}
	n.queue = append([]*waiting(nil), next[batchMax:]...)
	n.late = time.AfterFunc(n.timeout/overtakeShare, n.overtake)
	return next[:batchMax:batchMax]
}

// fly sends batches until nobody waits.
func (n *node) fly(batch []*waiting) {
	for len(batch) > 0 {
		n.send(batch)
		n.mu.Lock()
		batch = n.takeQueue()
		if len(batch) == 0 {
			n.flights--
		}
		n.mu.Unlock()
	}
}

// send asks for all of the batch that still wait.
func (n *node) send(batch []*waiting) {
	now := time.Now()
	live := batch[:0:0]
	for _, w := range batch {
		if w.deadline.After(now) {
			live = append(live, w)
		}
	}
	switch len(live) {
	case 0:
		return
	case 1:
		live[0].done <- n.flySingle(live[0].question, n.timeout)
		return
	}
	questions := make([]*Question, len(live))
	for i, w := range live {
		questions[i] = w.question
	}
	for i, a := range n.flyBatch(questions) {
		live[i].done <- a
	}
}

func (n *node) flySingle(q *Question, timeout time.Duration) answer {
	if !asHeader(q.Key) {
		return n.flyBatch([]*Question{q})[0]
	}
	ctx, cancel := context.WithTimeout(n.ctx, timeout)
	defer cancel()
	a, who := n.single(ctx, q)
	n.note(1, a.err)
	if a.err == nil && who.id != "" {
		n.learn(n, q.Key, who)
	}
	return a
}

func (n *node) flyBatch(questions []*Question) []answer {
	ctx, cancel := context.WithTimeout(n.ctx, n.timeout)
	defer cancel()
	answers := n.batch(ctx, questions)
	n.note(len(questions), outcome(answers))
	return answers
}

// outcome is what a batch tells about the node: one decision shows that it decides, whatever became
// of the neighbours; otherwise what speaks against the node counts.
func outcome(answers []answer) (err error) {
	for _, a := range answers {
		if a.err == nil {
			return nil
		}
		if err == nil || faulty(a.err) && !faulty(err) {
			err = a.err
		}
	}
	return err
}

// faulty says whether a failure is the node's and not one question's.
func faulty(err error) bool {
	if errors.Is(err, errAnswerTooLong) {
		return false
	}
	var status *statusError
	return !errors.As(err, &status) || status.faulty()
}

// note counts a round trip and tells the breaker.
func (n *node) note(checks int, err error) {
	metrics.ChecksSent.Add(float64(checks))
	switch {
	case err == nil:
		metrics.RoundTrips.WithLabelValues("ok").Inc()
		n.breaker.succeeded()
	case !faulty(err):
		// A wrong token or question, or a subscription that is busy, says nothing about the node.
		metrics.RoundTrips.WithLabelValues("failed").Inc()
	case n.ctx.Err() != nil:
		// The configuration that this node belonged to is gone.
	default:
		metrics.RoundTrips.WithLabelValues("failed").Inc()
		if n.breaker.failed() {
			openNodes.set(n, true)
			n.logger.Warn("node is left alone until it is ready again",
				zap.String("endpoint", n.base), zap.Error(err))
		}
	}
}

// probeLater looks after a while whether the node is ready, again and again until it is.
func (n *node) probeLater(after time.Duration) {
	go func() {
		for after > 0 {
			timer := time.NewTimer(after)
			select {
			case <-n.ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			ctx, cancel := context.WithTimeout(n.ctx, max(n.timeout, time.Second))
			well := n.ready(ctx)
			cancel()
			after = n.breaker.probed(well)
		}
		openNodes.set(n, false)
		n.logger.Info("node is asked again", zap.String("endpoint", n.base))
	}()
}
