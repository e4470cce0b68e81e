package tests

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkRequests sends requests through real Caddy to a real upstream, checked by a real node,
// from 64 connections. It tells the round trips for checks of each request, and what checks added.
//
//	WEIR_BINARY=target/release/weir go test -run '^$' -bench Requests -benchtime 20000x ./tests
func BenchmarkRequests(b *testing.B) {
	for _, coalesce := range []string{"on", "off"} {
		b.Run("coalesce="+coalesce, func(b *testing.B) {
			n, up := startNode(b), startUpstream(b)
			g := startGateway(b, up, options(n, patient+"coalesce "+coalesce+"\n"), "")
			keys := make([]string, 64)
			for i := range keys {
				keys[i] = n.subscribe(nil, nil).key
				g.mustGet(keys[i], "/")
			}
			before := g.metric("weir_gateway_check_round_trips_total")
			var group sync.WaitGroup
			var mu sync.Mutex
			took := make([]time.Duration, 0, b.N)
			b.ResetTimer()
			for worker := range keys {
				group.Add(1)
				go func() {
					defer group.Done()
					mine := make([]time.Duration, 0, b.N/len(keys)+1)
					for i := worker; i < b.N; i += len(keys) {
						began := time.Now()
						got, err := g.get(keys[worker], "/")
						if err != nil || got.status != http.StatusOK {
							b.Errorf("%d %v", got.status, err)
							return
						}
						mine = append(mine, time.Since(began))
					}
					mu.Lock()
					took = append(took, mine...)
					mu.Unlock()
				}()
			}
			group.Wait()
			b.StopTimer()
			trips := g.metric("weir_gateway_check_round_trips_total") - before
			b.ReportMetric(trips/float64(b.N), "round-trips/request")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			slices.Sort(took)
			for _, percent := range []int{50, 99} {
				at := took[(len(took)-1)*percent/100]
				b.ReportMetric(float64(at.Microseconds()), fmt.Sprintf("p%d-µs", percent))
			}
		})
	}
}

func TestABusyGatewayPaysAFractionOfARoundTripARequest(t *testing.T) {
	t.Parallel()
	n, up := startNode(t), startUpstream(t)
	sub := n.subscribe(nil, nil)
	g := startGateway(t, up, options(n, patient), "")
	var group sync.WaitGroup
	for range 64 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 20 {
				if got, err := g.get(sub.key, "/"); err != nil || got.status != http.StatusOK {
					t.Errorf("%d %v", got.status, err)
				}
			}
		}()
	}
	group.Wait()
	trips := g.metric("weir_gateway_check_round_trips_total")
	if sent := g.metric("weir_gateway_checks_sent_total"); sent != 64*20 || trips > sent/2 {
		t.Errorf("%v checks travelled in %v round trips", sent, trips)
	}
	agree(t, sub, up, sub.awaitRecords(64*20))
}
