package check

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/gateway/metrics"
)

func TestABucketGivesItsLimitThenFillsWithTime(t *testing.T) {
	t.Parallel()
	b := NewBuckets(10, time.Second)
	now := time.Unix(1_000_000, 0)
	story := []struct {
		key   string
		cost  uint64
		after time.Duration
		ok    bool
		wait  time.Duration
	}{
		{"a", 10, 0, true, 0},
		{"a", 1, 0, false, 100 * time.Millisecond},
		{"b", 1, 0, true, 0},
		{"a", 1, 100 * time.Millisecond, true, 0},
		{"a", 1, 0, false, 100 * time.Millisecond},
		{"a", 0, 0, true, 0},
		{"a", 11, time.Hour, false, time.Second},
		{"a", 10, 0, true, 0},
		// A clock that goes back gives nothing.
		{"a", 1, -time.Hour, false, 100 * time.Millisecond},
	}
	for i, step := range story {
		now = now.Add(step.after)
		ok, wait := b.Take(step.key, step.cost, now)
		if ok != step.ok || (wait-step.wait).Abs() > time.Millisecond {
			t.Errorf("step %d: %v after %s, not %v after %s", i, ok, wait, step.ok, step.wait)
		}
	}
}

func TestMemoryOfKeysIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	g := newGenerations[string, int](100)
	g.put("used", 1)
	for i := range 10_000 {
		g.put(fmt.Sprint(i), i)
		if _, ok := g.get("used"); !ok {
			t.Fatalf("forgotten after %d others although it was looked up", i)
		}
		if g.len() > 100 {
			t.Fatalf("%d entries, at most 100", g.len())
		}
	}
	if _, ok := g.get("0"); ok {
		t.Error("the oldest, never looked up, is still there")
	}
	g.remove("used")
	if _, ok := g.get("used"); ok {
		t.Error("removed and still there")
	}
}

func TestABreakerOpensProbesAndTries(t *testing.T) {
	t.Parallel()
	var probes []time.Duration
	b := breaker{probe: func(after time.Duration) { probes = append(probes, after) }}
	for i := range failuresMax - 1 {
		if b.failed() || !b.allows() {
			t.Fatalf("open after %d failures", i+1)
		}
	}
	b.succeeded()
	for i := range failuresMax {
		if opened := b.failed(); opened != (i == failuresMax-1) {
			t.Fatalf("failure %d after a success: opened %v", i+1, opened)
		}
	}
	if b.allows() || len(probes) != 1 {
		t.Fatalf("allows %v, %d probes", b.allows(), len(probes))
	}
	// An answer that was on its way does not close it.
	b.succeeded()
	if b.failed() || b.allows() {
		t.Error("a late answer changed an open breaker")
	}
	if again := b.probed(false); again <= 0 {
		t.Error("a failed probe is not followed by another")
	}
	if again := b.probed(true); again != 0 || !b.allows() {
		t.Error("a good probe did not close it")
	}
	if !b.failed() || len(probes) != 2 {
		t.Error("the first failure on trial did not open it again")
	}
	if probes[1] <= probes[0]/2 {
		t.Errorf("waits do not grow: %v", probes)
	}
}

func TestSecondsAreRoundedUpAndNeverZero(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	for left, want := range map[time.Duration]uint64{
		-time.Hour: 1, 0: 1, time.Nanosecond: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90,
	} {
		if got := SecondsUntil(now, now.Add(left)); got != want {
			t.Errorf("%s is %d s, not %d", left, got, want)
		}
	}
}

func TestAnEndpointIsShownAsLongAsACheckerLeavesItAlone(t *testing.T) {
	t.Parallel()
	// shown is the gauge's value, -1 when the endpoint is not there.
	const base = "http://shown.invalid"
	shown := func() float64 {
		registry := prometheus.NewRegistry()
		registry.MustRegister(metrics.BreakerOpen)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				if metric.GetLabel()[0].GetValue() == base {
					return metric.GetGauge().GetValue()
				}
			}
		}
		return -1
	}
	expect := func(when string, want float64) {
		t.Helper()
		if got := shown(); got != want {
			t.Errorf("%s: %v, not %v", when, got, want)
		}
	}
	// The checkers of two configurations.
	older, newer := New(Config{Endpoints: []string{base}}), New(Config{Endpoints: []string{base}})
	expect("before", -1)
	fail := func(c *Checker) {
		for range failuresMax {
			c.nodes[0].note(1, errWaitedTooLong)
		}
	}
	fail(older)
	expect("left alone", 1)
	fail(newer)
	older.Close()
	expect("left alone by the newer only", 1)
	openNodes.set(newer.nodes[0], false)
	expect("back", 0)
	newer.Close()
	expect("after both", -1)
	// A probe that was on its way shows nothing more.
	openNodes.set(newer.nodes[0], false)
	expect("after a late probe", -1)
}
