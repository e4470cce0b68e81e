package check

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/gateway/internal/fakeweir"
)

// long is a time-out that no test waits for.
const long = 20 * time.Second

func newFake(t *testing.T) *fakeweir.Server {
	t.Helper()
	fake := fakeweir.New()
	t.Cleanup(fake.Close)
	return fake
}

func newChecker(t *testing.T, timeout time.Duration, fakes ...*fakeweir.Server) *Checker {
	t.Helper()
	config := Config{Token: fakeweir.Token, Timeout: timeout, Together: true, DenialRepeat: time.Hour}
	for _, fake := range fakes {
		config.Endpoints = append(config.Endpoints, fake.URL)
	}
	c := New(config)
	t.Cleanup(c.Close)
	return c
}

var ids struct {
	sync.Mutex
	count int
}

func question(key string) *Question {
	ids.Lock()
	defer ids.Unlock()
	ids.count++
	return &Question{Key: key, RequestID: fmt.Sprintf("request-%d", ids.count)}
}

func mustAsk(t *testing.T, c *Checker, q *Question) *Decision {
	t.Helper()
	decision, _, err := c.Ask(q)
	if err != nil {
		t.Fatalf("%s: %v, because of %v", q.Key, err, errors.Unwrap(err))
	}
	return decision
}

func TestChecksThatWaitForOneNodeTravelTogether(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	release := make(chan struct{})
	fake.Break(func(string) fakeweir.Fault { return fakeweir.Fault{Wait: release} })
	c := newChecker(t, long, fake)
	var group sync.WaitGroup
	ask := func() {
		group.Add(1)
		go func() {
			defer group.Done()
			mustAsk(t, c, question("key"))
		}()
	}
	ask()
	until(t, func() bool { return len(fake.Trips()) == 1 })
	for range 99 {
		ask()
	}
	n := c.nodes[0]
	until(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.queue) == 99
	})
	close(release)
	group.Wait()
	if trips := fake.Trips(); len(trips) != 2 || trips[0] != 1 || trips[1] != 99 {
		t.Errorf("round trips carried %v checks; the first goes at once, the rest together", trips)
	}
}

func TestAFlightThatHangsIsOvertaken(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	hang := make(chan struct{})
	defer close(hang)
	var first sync.Once
	fake.Break(func(string) (fault fakeweir.Fault) {
		first.Do(func() { fault.Wait = hang })
		return fault
	})
	c := newChecker(t, 4*time.Second, fake)
	stuck := make(chan error, 1)
	go func() {
		_, _, err := c.Ask(question("stuck"))
		stuck <- err
	}()
	until(t, func() bool { return len(fake.Trips()) == 1 })
	mustAsk(t, c, question("free"))
	select {
	case err := <-stuck:
		t.Errorf("the stuck check ended before the free one: %v", err)
	default:
	}
	var undecided *UndecidedError
	if err := <-stuck; !errors.As(err, &undecided) {
		t.Errorf("a check without an answer ended with %v", err)
	}
}

func TestEveryQuestionGetsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	fake.Decide = func(key string, cost uint64) map[string]any {
		d := fakeweir.Allowed()
		d["subscriptionId"] = key
		d["used"] = cost
		return d
	}
	c := newChecker(t, long, fake)
	var group sync.WaitGroup
	for i := range 500 {
		group.Add(1)
		go func() {
			defer group.Done()
			// Every seventh key cannot be a header.
			key, cost := fmt.Sprintf("key-%d", i), uint64(i)
			if i%7 == 0 {
				key = fmt.Sprintf("schlüssel-%d", i)
			}
			q := question(key)
			q.Cost = &cost
			if d := mustAsk(t, c, q); d.SubscriptionID != key || d.Used != cost {
				t.Errorf("%s got the answer of %s, %d", key, d.SubscriptionID, d.Used)
			}
		}()
	}
	group.Wait()
}

func TestAnotherNodeIsAskedWithTheSameID(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]fakeweir.Fault{
		"unavailable": {Status: http.StatusServiceUnavailable}, "lost answer": {LoseAnswer: true},
		"slow": {Wait: make(chan struct{})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ill, well := newFake(t), newFake(t)
			ill.Break(func(string) fakeweir.Fault { return fault })
			c := newChecker(t, 2*time.Second, ill, well)
			asked := 0
			for i := range 20 {
				q := question(fmt.Sprintf("key-%d", i))
				mustAsk(t, c, q)
				if well.Decided(q.RequestID) != 1 {
					t.Errorf("the well node was asked %d times", well.Decided(q.RequestID))
				}
				asked += min(1, ill.Decided(q.RequestID))
			}
			// Enough to open the breaker (a flight overtaken counts only later), and then no more.
			if asked == 0 || asked > failuresMax+flightsMax {
				t.Errorf("the ill node was asked about %d requests", asked)
			}
		})
	}
}

func TestAWrongTokenIsNotTheNodesFailure(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	fake.Break(func(string) fakeweir.Fault { return fakeweir.Fault{Status: http.StatusUnauthorized} })
	c := newChecker(t, long, fake)
	for range 3 * failuresMax {
		var undecided *UndecidedError
		if _, _, err := c.Ask(question("key")); !errors.As(err, &undecided) {
			t.Fatalf("a refused token decided: %v", err)
		}
	}
	if trips := len(fake.Trips()); trips != 3*failuresMax {
		t.Errorf("asked %d times; the breaker must not open", trips)
	}
	fake.Break(nil)
	mustAsk(t, c, question("key"))
}

func TestAnOpenBreakerCostsNothingAndClosesByItself(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	fake.Break(func(string) fakeweir.Fault { return fakeweir.Fault{Status: http.StatusServiceUnavailable} })
	fake.SetReady(false)
	c := newChecker(t, long, fake)
	for range 50 {
		if _, _, err := c.Ask(question("key")); err == nil {
			t.Fatal("503 decided")
		}
	}
	if trips := len(fake.Trips()); trips != failuresMax {
		t.Errorf("50 requests asked %d times, not %d", trips, failuresMax)
	}
	fake.Break(nil)
	fake.SetReady(true)
	until(t, func() bool {
		_, _, err := c.Ask(question("key"))
		return err == nil
	})
}

func TestRefusalsAreRepeatedAndOutliveTheNodeAndAllowancesDoNot(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	fake.Decide = func(key string, _ uint64) map[string]any {
		switch key {
		case "spent":
			return fakeweir.Denied(ReasonQuotaExceeded, time.Hour)
		case "fast":
			return fakeweir.Denied(ReasonRateLimited, time.Second)
		default:
			return fakeweir.Allowed()
		}
	}
	c := newChecker(t, long, fake)
	mustAsk(t, c, question("good"))
	mustAsk(t, c, question("spent"))
	mustAsk(t, c, question("fast"))
	before := len(fake.Trips())
	decision, cached, err := c.Ask(question("spent"))
	if err != nil || decision.Allowed || !cached || len(fake.Trips()) != before {
		t.Errorf("the refusal was not repeated: %+v %v %v", decision, cached, err)
	}
	// Another cost is another question.
	zero := uint64(0)
	peek := question("spent")
	peek.Cost = &zero
	if _, cached, _ := c.Ask(peek); cached {
		t.Error("a refusal for one cost answered for another")
	}
	// A second, rounded up, may be over at once.
	before = len(fake.Trips())
	mustAsk(t, c, question("fast"))
	mustAsk(t, c, question("good"))
	if asked := len(fake.Trips()) - before; asked != 2 {
		t.Errorf("asked %d times about a rate limit of a second and about a good key", asked)
	}
	fake.Close()
	if decision, cached, err := c.Ask(question("spent")); err != nil || !cached || decision.Allowed {
		t.Errorf("who was over the quota is %v %v in an outage", decision, err)
	}
	if _, _, err := c.Ask(question("good")); err == nil {
		t.Error("an allowance was remembered")
	}
}

func TestTheOwnerIsLearnedAndAskedFirst(t *testing.T) {
	t.Parallel()
	for name, told := range map[string]bool{"from answers": false, "from the cluster": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, owner := newFake(t), newFake(t)
			asked.ID, owner.ID, asked.Owner = "first", "second", "second"
			fakes := []*fakeweir.Server{asked, owner}
			if told {
				asked.Nodes = map[string]string{"second": owner.Listener.Addr().String()}
				fakes = fakes[:1]
			}
			c := newChecker(t, long, fakes...)
			if !told {
				// Some key makes the second known.
				until(t, func() bool { mustAsk(t, c, question(question("").RequestID)); return len(owner.Trips()) > 0 })
			}
			until(t, func() bool {
				before := len(owner.Trips())
				mustAsk(t, c, question("key"))
				return len(owner.Trips()) > before
			})
			before := len(asked.Trips())
			for range 10 {
				mustAsk(t, c, question("key"))
			}
			if more := len(asked.Trips()) - before; more != 0 {
				t.Errorf("%d of 10 checks took the longer way", more)
			}
			owner.Close()
			mustAsk(t, c, question("key"))
		})
	}
}

func TestANodeWithoutADecisionIsNotBelieved(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	fake.Decide = func(string, uint64) map[string]any { return map[string]any{"allowed": true} }
	c := newChecker(t, long, fake)
	for _, key := range []string{"key", "schlüssel"} {
		if decision, _, err := c.Ask(question(key)); err == nil {
			t.Errorf("decided: %+v", decision)
		}
	}
}

func TestTheTokenIsNeverSentInTheClearWhenItWasSentOverTLS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ endpoint, address, want string }{
		{"https://a:1", "b:2", "https://b:2"}, {"https://a:1", "https://b:2/x", "https://b:2"},
		{"https://a:1", "http://b:2", ""}, {"http://a:1", "http://b:2", "http://b:2"},
		{"http://a:1", "://", ""}, {"http://a:1", "", ""},
	} {
		if got := baseLike(c.endpoint, c.address); got != c.want {
			t.Errorf("%s named by %s: %q, not %q", c.address, c.endpoint, got, c.want)
		}
	}
}

// until asks again and again, with an end.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("did not happen in time")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAQuestionThatANodeRefusesIsNotLeftToThePolicy(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"key", "schlüssel"} {
		fake, other := newFake(t), newFake(t)
		refuse := func(string) fakeweir.Fault {
			return fakeweir.Fault{Status: http.StatusBadRequest, Code: "invalid_parameter"}
		}
		fake.Break(refuse)
		other.Break(refuse)
		c := newChecker(t, long, fake, other)
		for i := range 2 * failuresMax {
			var refused *RefusedQuestionError
			if _, _, err := c.Ask(question(key)); !errors.As(err, &refused) {
				t.Fatalf("try %d about %q ended with %v", i, key, err)
			}
		}
		if trips := len(fake.Trips()) + len(other.Trips()); trips != 2*failuresMax {
			t.Errorf("%q: asked %d times; another node would say the same, and each is well", key, trips)
		}
	}
	// An item of a batch is refused like a single check.
	fake := newFake(t)
	fake.Decide = func(string, uint64) map[string]any {
		return map[string]any{"error": map[string]any{"code": "invalid_parameter"}}
	}
	var refused *RefusedQuestionError
	if _, _, err := newChecker(t, long, fake).Ask(question("schlüssel")); !errors.As(err, &refused) {
		t.Errorf("a refused item ended with %v", err)
	}
}

func TestANodeThatCannotAnswerNowIsPassedOverAndNotBlamed(t *testing.T) {
	t.Parallel()
	for _, fault := range []fakeweir.Fault{
		{Status: http.StatusNotFound, Code: "not_found"}, {Status: http.StatusRequestTimeout},
		{Status: http.StatusTooManyRequests},
		{Status: http.StatusServiceUnavailable, Code: "subscription_busy"},
		{Status: http.StatusServiceUnavailable, Code: "store_unavailable"},
		{Status: http.StatusServiceUnavailable, Code: "undecided"},
	} {
		ill, well := newFake(t), newFake(t)
		ill.Break(func(string) fakeweir.Fault { return fault })
		c := newChecker(t, long, ill, well)
		for i := range 8 * failuresMax {
			mustAsk(t, c, question(fmt.Sprintf("key-%d", i)))
		}
		if !c.nodes[0].breaker.allows() || len(ill.Trips()) <= failuresMax {
			t.Errorf("%d %s opened the breaker after %d trips", fault.Status, fault.Code, len(ill.Trips()))
		}
	}
}

func TestABatchBlamesTheNodeOnlyForWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	busy := answer{err: itemError("subscription_busy")}
	away := answer{err: errors.New("connection refused")}
	decided := answer{decision: &Decision{}}
	for name, c := range map[string]struct {
		answers []answer
		blamed  bool
	}{
		"all busy": {[]answer{busy, busy}, false}, "one decided": {[]answer{away, decided}, false},
		"all away": {[]answer{away, away}, true}, "busy and away": {[]answer{busy, away}, true},
	} {
		if err := outcome(c.answers); (err != nil && faulty(err)) != c.blamed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnAnswerThatIsTooLongSaysSoAndBlamesNobody(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	pad := func(bytes int) func(string, uint64) map[string]any {
		return func(string, uint64) map[string]any {
			d := fakeweir.Allowed()
			d["padding"] = strings.Repeat("x", bytes)
			return d
		}
	}
	c := newChecker(t, long, fake)
	// Batches may be longer than one decision.
	fake.Decide = pad(2 << 20)
	mustAsk(t, c, question("schlüssel"))
	for key, bytes := range map[string]int{"key": answerBytesMax, "schlüssel": batchAnswerBytesMax} {
		fake.Decide = pad(bytes)
		for range failuresMax + 1 {
			if _, _, err := c.Ask(question(key)); !errors.Is(err, errAnswerTooLong) {
				t.Errorf("%s: %v", key, err)
			}
		}
	}
	if !c.nodes[0].breaker.allows() {
		t.Error("long answers opened the breaker")
	}
}
