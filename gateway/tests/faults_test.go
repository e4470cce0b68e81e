package tests

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// agree checks that what reached the upstream is in the ledger, each once, and charged.
func agree(
	t *testing.T, sub subscription, up *upstream, records map[string]map[string]any, others ...map[string]map[string]any,
) {
	t.Helper()
	lost, served := 0, 0
	known := maps.Clone(records)
	for _, other := range others {
		maps.Copy(known, other)
	}
	for id := range up.reached(t) {
		if record := known[id]; record == nil || record["outcome"] == "denied" {
			lost++
		}
	}
	for _, record := range records {
		if record["outcome"] != "denied" {
			served++
		}
	}
	if lost != 0 {
		t.Errorf("%d of %d requests that reached the upstream are not recorded", lost, len(up.reached(t)))
	}
	if used := sub.used(); used != served {
		t.Errorf("%d charged, %d recorded", used, served)
	}
}

// awaitReached waits until so many requests reached the upstream.
func awaitReached(t *testing.T, up *upstream, count int) {
	t.Helper()
	eventually(t, func() error {
		up.mu.Lock()
		defer up.mu.Unlock()
		if len(up.ids) < count {
			return fmt.Errorf("%d of %d requests reached the upstream", len(up.ids), count)
		}
		return nil
	})
}

func TestTwentyReloadsUnderLoadLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(nil, nil)
	// What changes: nothing, the tuning, and the token, which makes a sender of its own.
	configs := []string{
		options(n, patient), options(n, patient+"batch 50\n"),
		strings.Replace(options(n, patient), "dev-gateway", "dev-admin", 1),
	}
	g := startGateway(t, up, configs[0], "")
	ctx, end := context.WithCancel(t.Context())
	loaded := g.load(ctx, 8, sub.key)
	for reload := range 20 {
		awaitReached(t, up, 20*(reload+1))
		g.configure(up, configs[reload%len(configs)], "")
		g.reload()
	}
	counted := g.metric("weir_gateway_decisions_total")
	end()
	counts := loaded()
	// Caddy hands its listener over at every reload and resets connections that it had not taken
	// yet: those requests have no answer (0), and reached nobody.
	answered := counts[200]
	delete(counts, 200)
	delete(counts, 0)
	if answered < 400 || len(counts) != 0 {
		t.Errorf("%d answered, and some with %v", answered, counts)
	}
	if reached := len(up.reached(t)); reached != answered {
		t.Errorf("%d reached the upstream, %d were answered", reached, answered)
	}
	if counted < 400 {
		t.Errorf("metrics did not survive the reloads: %v decisions", counted)
	}
	agree(t, sub, up, sub.awaitRecords(answered))
	if doubled := g.metric("weir_gateway_events_total", `result="duplicate"`); doubled != 0 {
		t.Errorf("%v events were sent twice", doubled)
	}
}

func TestAnOrderlyEndLosesNothing(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(nil, nil)
	// Nothing would be sent for an hour.
	g := startGateway(t, up, options(n, "timeout 20s\n fail closed\n flush 1h\n"), "")
	for range 30 {
		g.mustGet(sub.key, "/")
	}
	if records := sub.records(); len(records) != 0 {
		t.Fatalf("%d events were sent before their time", len(records))
	}
	g.stop()
	agree(t, sub, up, sub.awaitRecords(30))
}

func TestAGatewayKilledUnderLoadLosesNothingWithASpool(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(nil, nil)
	g := startGateway(t, up, options(n, patient+"batch 20\n spool "+t.TempDir()+"\n"), "")
	for round := range 3 {
		ctx, end := context.WithCancel(t.Context())
		loaded := g.load(ctx, 8, sub.key)
		awaitReached(t, up, 150*(round+1))
		g.kill()
		end()
		loaded()
		g.start()
	}
	g.mustGet(sub.key, "/")
	var records map[string]map[string]any
	eventually(t, func() error {
		records = sub.records()
		for id := range up.reached(t) {
			if records[id] == nil {
				return fmt.Errorf("event %s is not in the ledger", id)
			}
		}
		if pending := g.metric("weir_gateway_events_pending"); pending != 0 {
			return fmt.Errorf("%v events wait", pending)
		}
		return nil
	})
	agree(t, sub, up, sub.records())
	// Beyond those that reached the upstream only what was on its way may be there.
	if more := len(records) - len(up.reached(t)); more > 3*8 {
		t.Errorf("%d events are recorded that never reached the upstream", more)
	}
}

func TestAnOutageIsBridgedByThePolicyAndEverythingArrivesAfterwards(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub, spent := n.subscribe(nil, nil), n.subscribe(1, nil)
	g := startGateway(t, up, options(n, "timeout 2s\n fail open\n flush 100ms\n spool "+t.TempDir()+"\n"), "")
	g.mustGet(sub.key, "/")
	for range 2 {
		g.mustGet(spent.key, "/")
	}
	sub.awaitRecords(1)
	spent.awaitRecords(2)

	n.kill()
	open := func() bool { return g.metric("weir_gateway_breaker_open") == 1 }
	passed := 0
	for ; passed < 100 && !open(); passed++ {
		if got := g.mustGet(sub.key, "/"); got.status != http.StatusOK {
			t.Fatalf("fail open answered %d", got.status)
		}
	}
	if !open() {
		t.Fatal("the breaker does not open")
	}
	// Now requests no longer ask: not one exchange is tried for two hundred of them.
	tried := g.metric("weir_gateway_check_round_trips_total")
	for range 200 {
		passed++
		if got := g.mustGet(sub.key, "/"); got.status != http.StatusOK {
			t.Fatalf("fail open answered %d", got.status)
		}
	}
	if more := g.metric("weir_gateway_check_round_trips_total") - tried; more != 0 {
		t.Errorf("%v exchanges were tried with an open breaker", more)
	}
	// Who was over the quota stays over it, whatever the policy.
	if got := g.mustGet(spent.key, "/"); got.status != http.StatusTooManyRequests {
		t.Errorf("a spent quota passed in the outage: %d", got.status)
	}

	n.start()
	agree(t, sub, up, sub.awaitRecords(1+passed), spent.awaitRecords(3))
	eventually(t, func() error {
		if open() {
			return fmt.Errorf("the breaker stays open")
		}
		return nil
	})
	other := n.subscribe(0, nil)
	if got := g.mustGet(other.key, "/"); got.status != http.StatusTooManyRequests {
		t.Errorf("after the outage nothing is enforced: %d", got.status)
	}
	if dropped := g.metric("weir_gateway_events_total", `result="dropped"`); dropped != 0 {
		t.Errorf("%v events were dropped", dropped)
	}
}

func TestAFrozenNodeIsLeftAloneAndThePolicyCloses(t *testing.T) {
	t.Parallel()
	hung, up, n := newHung(t), startUpstream(t), startNode(t)
	sub := n.subscribe(5, nil)
	closed := startGateway(t, up, fmt.Sprintf(
		"endpoint %s\n token dev-gateway\n timeout 50ms\n fail closed\n flush 100ms\n", hung.url()), "")
	for range 20 {
		if got := closed.mustGet(sub.key, "/"); got.status != http.StatusServiceUnavailable ||
			got.header.Get("Retry-After") != "1" {
			t.Fatalf("fail closed answered %d %v", got.status, got.header)
		}
	}
	if len(up.reached(t)) != 0 || hung.asked.Load() > 10 {
		t.Errorf("%d reached the upstream; the frozen node was asked %d times in 20 requests",
			len(up.reached(t)), hung.asked.Load())
	}
}

func TestAnotherEndpointAnswersForOneThatHangsOrIsGone(t *testing.T) {
	t.Parallel()
	n, up, hung := startNode(t), startUpstream(t), newHung(t)
	sub := n.subscribe(40, nil)
	// The one that hangs may take half of it.
	const bridging = "timeout 8s\n fail closed\n flush 100ms\n"
	// Nobody is given port 1, while a port that was free may be another test's by then.
	endpoints := fmt.Sprintf("endpoint %s http://127.0.0.1:1\n endpoint %s\n token dev-gateway\n",
		hung.url(), n.url())
	// Two gateways share the quota.
	first := startGateway(t, up, endpoints+bridging, "")
	second := startGateway(t, up, endpoints+bridging, "")
	var group sync.WaitGroup
	var passed, refused atomic.Int64
	for _, g := range []*gateway{first, second} {
		for range 30 {
			group.Add(1)
			go func() {
				defer group.Done()
				got, err := g.get(sub.key, "/")
				switch {
				case err != nil:
					t.Error(err)
				case got.status == http.StatusOK:
					passed.Add(1)
				case got.status == http.StatusTooManyRequests:
					refused.Add(1)
				default:
					t.Errorf("answered %d", got.status)
				}
			}()
		}
	}
	group.Wait()
	if passed.Load() != 40 || refused.Load() != 20 || len(up.reached(t)) != 40 {
		t.Errorf("%d passed, %d refused, %d reached the upstream", passed.Load(), refused.Load(), len(up.reached(t)))
	}
	agree(t, sub, up, sub.awaitRecords(60))
}

// hung accepts connections and never answers, as a frozen node does.
type hung struct {
	listener net.Listener
	asked    atomic.Int64
}

func newHung(t *testing.T) *hung {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	h := &hung{listener: listener}
	var mu sync.Mutex
	var held []net.Conn
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			h.asked.Add(1)
			mu.Lock()
			held = append(held, connection)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, connection := range held {
			connection.Close()
		}
	})
	return h
}

func (h *hung) url() string { return "http://" + h.listener.Addr().String() }

func TestASecondProcessMayNotUseTheSameSpool(t *testing.T) {
	t.Parallel()
	n, up, spool := startNode(t), startUpstream(t), t.TempDir()
	config := options(n, patient+"spool "+spool+"\n")
	first := startGateway(t, up, config, "")
	// Only looking at the configuration does not touch the spool.
	second := &gateway{t: t, addr: freePort(t), admin: freePort(t), client: first.client}
	second.configure(up, config, "")
	for _, command := range []string{"validate", "run"} {
		text, err := second.try(command)
		refused := strings.Contains(text, "in use by another process")
		if command == "validate" && err != nil {
			t.Errorf("validate: %v %s", err, text)
		}
		if command == "run" && (err == nil || !refused) {
			t.Errorf("a second process started on the same spool: %v %s", err, text)
		}
	}
	// Leaving the spool and coming back is no conflict with oneself.
	for range 3 {
		first.configure(up, options(n, patient), "")
		first.reload()
		first.configure(up, config, "")
		first.reload()
	}
	sub := n.subscribe(nil, nil)
	first.mustGet(sub.key, "/")
	sub.awaitRecords(1)
}
