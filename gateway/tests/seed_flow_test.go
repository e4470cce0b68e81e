package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Exactness is tested with a node that may take its time: a machine under load must not turn a
// slow answer into a decision of the fail policy.
const patient = "timeout 20s\n fail closed\n flush 100ms\n"

func options(n *node, more string) string {
	return fmt.Sprintf("endpoint %s\n token dev-gateway\n %s", n.url(), more)
}

func TestEveryRequestIsCheckedForwardedAndRecordedExactly(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(50, nil)
	g := startGateway(t, up, options(n, patient), "")

	post, err := http.NewRequest(http.MethodPost, "http://"+g.addr+"/v1//items/../search?q=1",
		bytes.NewReader(make([]byte, 3000)))
	check(t, err)
	post.Header.Set("X-Subscription-Key", sub.key)
	post.Header.Set("User-Agent", "seed-flow/1.0")
	post.Header.Set("X-Forwarded-For", "203.0.113.9")
	got, err := g.do(post)
	check(t, err)
	if got.status != http.StatusOK || string(got.body) != "read 3000" {
		t.Fatalf("not forwarded: %d %s", got.status, got.body)
	}
	if limit := got.header.Get("RateLimit"); !strings.HasPrefix(limit, `"requests";r=49;t=`) {
		t.Errorf("RateLimit on an allowed answer: %q", limit)
	}
	if policy := got.header.Get("RateLimit-Policy"); !strings.HasPrefix(policy, `"requests";q=50;w=`) {
		t.Errorf("RateLimit-Policy on an allowed answer: %q", policy)
	}
	if values := got.header.Values("RateLimit"); len(values) != 1 {
		t.Errorf("the upstream's RateLimit is there, too: %q", values)
	}
	for range 4 {
		if got := g.mustGet(sub.key, "/fail"); got.status != http.StatusBadGateway {
			t.Fatalf("the upstream's status became %d", got.status)
		}
	}
	for range 45 {
		g.mustGet(sub.key, "/")
	}
	denied := g.mustGet(sub.key, "/")
	if denied.status != http.StatusTooManyRequests {
		t.Fatalf("request 51 of 50: %d", denied.status)
	}

	records := sub.awaitRecords(51)
	byStatus := map[int]int{}
	for _, record := range records {
		byStatus[int(record["statusCode"].(float64))]++
		if record["method"] != http.MethodPost {
			continue
		}
		want := map[string]any{
			"apiPath": "/v1/search", "requestSize": 3000.0, "responseSize": 9.0, "outcome": "served",
			"userAgent": "seed-flow/1.0", "ipAddress": "203.0.113.9", "statusCode": 200.0,
		}
		for field, value := range want {
			if record[field] != value {
				t.Errorf("%s is recorded as %v, not %v", field, record[field], value)
			}
		}
		if ms, _ := record["responseTimeMs"].(float64); ms <= 0 {
			t.Errorf("no response time: %v", record["responseTimeMs"])
		}
	}
	if byStatus[200] != 46 || byStatus[502] != 4 || byStatus[429] != 1 {
		t.Errorf("recorded statuses: %v", byStatus)
	}
	reached := up.reached(t)
	for id := range reached {
		if records[id] == nil || records[id]["outcome"] != "served" {
			t.Errorf("event %s reached the upstream and is not recorded as served", id)
		}
	}
	if len(reached) != 50 || sub.used() != 50 {
		t.Errorf("%d reached the upstream, %d are charged; both must be 50", len(reached), sub.used())
	}
	eventually(t, func() error {
		stats := n.call(http.MethodGet, "/api/v1/usage/stats?subscriptionId="+sub.id, nil)
		if stats["requests"] != 51.0 || stats["denied"] != 1.0 || stats["units"] != 50.0 {
			return fmt.Errorf("stats: %v", stats)
		}
		return nil
	})
	if accepted := g.metric("weir_gateway_events_total", `result="accepted"`); accepted != 51 {
		t.Errorf("metrics count %v accepted events", accepted)
	}
}

func TestOfThreeHundredConcurrentRequestsAHundredPass(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(100, nil)
	g := startGateway(t, up, options(n, patient), "")
	var group sync.WaitGroup
	var mu sync.Mutex
	counts := map[int]int{}
	for range 300 {
		group.Add(1)
		go func() {
			defer group.Done()
			got, err := g.get(sub.key, "/")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			counts[got.status]++
			if got.status == http.StatusTooManyRequests {
				checkRefusal(t, got)
			}
		}()
	}
	group.Wait()
	if counts[200] != 100 || counts[429] != 200 || len(up.reached(t)) != 100 {
		t.Errorf("answers %v, %d reached the upstream", counts, len(up.reached(t)))
	}
	denied := 0
	for _, record := range sub.awaitRecords(300) {
		if record["outcome"] == "denied" {
			denied++
		}
	}
	if denied != 200 || sub.used() != 100 {
		t.Errorf("%d recorded as denied, %d charged", denied, sub.used())
	}
}

// checkRefusal checks a 429 of a monthly quota.
func checkRefusal(t *testing.T, got answer) {
	t.Helper()
	now := time.Now().UTC()
	reset := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	seconds, err := strconv.Atoi(got.header.Get("Retry-After"))
	// A minute for a slow machine between the decision and here.
	if left := reset.Sub(now).Seconds(); err != nil || float64(seconds) < left || float64(seconds) > left+60 {
		t.Errorf("Retry-After is %q, the period ends in %.1f s", got.header.Get("Retry-After"), left)
	}
	if got.header.Get("Content-Type") != "application/problem+json" ||
		got.header.Get("Cache-Control") != "no-store" ||
		!strings.HasPrefix(got.header.Get("RateLimit"), `"requests";r=0;t=`) {
		t.Errorf("headers of a refusal: %v", got.header)
	}
	var problem struct {
		Status   int      `json:"status"`
		Code     string   `json:"code"`
		Violated []string `json:"violated-policies"`
	}
	if err := json.Unmarshal(got.body, &problem); err != nil || problem.Status != 429 ||
		problem.Code != "quota_exceeded" || len(problem.Violated) != 1 {
		t.Errorf("body of a refusal: %s (%v)", got.body, err)
	}
}

func TestKeysThatAreNotGoodAreRefusedAndRecordNothing(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(10, nil)
	g := startGateway(t, up, options(n, patient), "")
	for name, key := range map[string]string{
		"missing": "", "unknown": "nobody-has-this", "not ASCII": "schlüssel", "too long": strings.Repeat("k", 600),
	} {
		if got := g.mustGet(key, "/"); got.status != http.StatusUnauthorized ||
			got.header.Get("WWW-Authenticate") == "" || got.header.Get("RateLimit") != "" {
			t.Errorf("%s key: %d %v", name, got.status, got.header)
		}
	}
	n.call(http.MethodPatch, "/api/v1/subscriptions/"+sub.id, map[string]any{"status": "suspended"})
	got := g.mustGet(sub.key, "/")
	if got.status != http.StatusForbidden || got.header.Get("Retry-After") != "" {
		t.Errorf("suspended: %d %v", got.status, got.header)
	}
	if reached := up.reached(t); len(reached) != 0 {
		t.Errorf("%d reached the upstream", len(reached))
	}
	for _, record := range sub.awaitRecords(1) {
		if record["outcome"] != "denied" || record["statusCode"] != 403.0 {
			t.Errorf("recorded: %v", record)
		}
	}
}

func TestAnErrorPageMayReplaceTheRefusal(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(0, nil)
	g := startGateway(t, up, options(n, patient),
		"handle_errors 429 {\n respond \"come back in {http.weir.retry_after}, {http.weir.reason}\" 429\n }")
	got := g.mustGet(sub.key, "/")
	want := "come back in " + got.header.Get("Retry-After") + ", quota_exceeded"
	if got.status != http.StatusTooManyRequests || string(got.body) != want || got.header.Get("RateLimit") == "" {
		t.Errorf("%d %q, not %q; %v", got.status, got.body, want, got.header)
	}
	sub.awaitRecords(1)
}

func TestCostsComeFromThePlanOrTheGatewayNotFromTheClient(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	planned := n.subscribe(100, map[string]any{
		"costs": []any{map[string]any{"method": "GET", "path": "/v1/generate*", "units": 5}},
	})
	g := startGateway(t, up, options(n, patient), "")
	// What a client adds changes nothing: not the key, not the cost, not the standing.
	victim := n.subscribe(100, nil)
	request, err := http.NewRequest(http.MethodGet,
		"http://"+g.addr+"/v1/x/..//%67enerate?cost=0&subscriptionKey="+victim.key, nil)
	check(t, err)
	request.Header.Set("X-Subscription-Key", planned.key)
	request.Header.Set("X-Quota-Remaining", "999999")
	request.Header.Set("Idempotency-Key", "always-the-same")
	for range 3 {
		if got, err := g.do(request); err != nil || got.status != http.StatusOK {
			t.Fatal(got.status, err)
		}
	}
	planned.awaitRecords(3)
	if planned.used() != 15 || victim.used() != 0 {
		t.Errorf("charged %d, the victim %d; want 15 and 0", planned.used(), victim.used())
	}

	fixed := startGateway(t, up, options(n, patient+"cost 7\n"), "")
	priced := n.subscribe(20, nil)
	for _, want := range []int{200, 200, 429} {
		if got := fixed.mustGet(priced.key, "/"); got.status != want {
			t.Errorf("cost 7 of 20: %d, not %d", got.status, want)
		}
	}
	priced.awaitRecords(3)
	if priced.used() != 14 {
		t.Errorf("charged %d, not 14", priced.used())
	}
}

func TestBrokenAnswersAndLeftClientsAreRecordedAsAborted(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(nil, nil)
	g := startGateway(t, up, options(n, patient), "")
	if _, err := g.get(sub.key, "/cut"); err == nil {
		t.Error("an answer that was cut short came whole")
	}
	ctx, leave := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr+"/slow", nil)
	check(t, err)
	request.Header.Set("X-Subscription-Key", sub.key)
	response, err := g.client.Do(request)
	check(t, err)
	leave()
	response.Body.Close()
	for _, record := range sub.awaitRecords(2) {
		if record["outcome"] != "aborted" || record["statusCode"] != 200.0 || record["success"] != false {
			t.Errorf("recorded: %v", record)
		}
	}
	if sub.used() != 2 {
		t.Errorf("%d charged, not 2", sub.used())
	}
}

func TestAShadowLetsEverythingThroughAndTellsWhatItWouldHaveRefused(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(2, nil)
	g := startGateway(t, up, options(n, patient+"shadow\n"), "")
	for range 5 {
		if got := g.mustGet(sub.key, "/"); got.status != http.StatusOK {
			t.Errorf("a shadow answered %d", got.status)
		}
	}
	g.mustGet("nobody-has-this", "/")
	sub.awaitRecords(5)
	if reached := up.reached(t); len(reached) != 6 {
		t.Errorf("%d reached the upstream", len(reached))
	}
	shadowed := g.metric("weir_gateway_decisions_total", `mode="shadow"`, `reason="quota_exceeded"`)
	if shadowed != 3 {
		t.Errorf("%v would have been refused, not 3", shadowed)
	}
}
