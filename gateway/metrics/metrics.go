// Package metrics holds what the gateway counts.
//
// The collectors live as long as the process, because Caddy makes a new registry at every reload:
// [Register] puts the same collectors into each, so that counters go on. No label has a
// subscription or a key in it.
package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// What is counted.
var (
	// Decisions: decision allowed|denied, reason as in the contract, mode enforced|shadow|degraded|
	// cached|open|closed|local.
	Decisions = counter("weir_gateway_decisions_total",
		"Requests by decision, reason and who decided.", "decision", "reason", "mode")
	// CheckSeconds is what a check added to a request, whoever decided.
	CheckSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "weir_gateway_check_duration_seconds", Help: "Time a check added to a request.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1},
	})
	// RoundTrips are HTTP exchanges for checks; result ok|failed.
	RoundTrips = counter("weir_gateway_check_round_trips_total",
		"HTTP exchanges for checks.", "result")
	// ChecksSent are the checks in those exchanges.
	ChecksSent = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "weir_gateway_checks_sent_total", Help: "Checks that travelled in round trips.",
	})
	// BreakerOpen is 1 for an endpoint that is left alone.
	BreakerOpen = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "weir_gateway_breaker_open", Help: "1 while an endpoint is left alone.",
	}, []string{"endpoint"})
	// Events: result accepted|duplicate|rejected|dropped.
	Events = counter("weir_gateway_events_total",
		"Usage events by what became of them.", "result")
	// EventsPending wait to be sent.
	EventsPending = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "weir_gateway_events_pending", Help: "Usage events that wait to be sent.",
	})
	// Deliveries are POSTs of event batches; result ok|failed.
	Deliveries = counter("weir_gateway_event_batches_total",
		"Batches of events sent.", "result")
	// SpoolBytes are on disk.
	SpoolBytes = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "weir_gateway_spool_bytes", Help: "Bytes of spooled usage events on disk.",
	})
	// SpoolErrors are events that could not be put on disk and went to memory instead.
	SpoolErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "weir_gateway_spool_errors_total",
		Help: "Events that the spool could not take; they were kept in memory.",
	})
)

// Register puts the collectors into a registry, which may have them already.
func Register(registry prometheus.Registerer) error {
	all := []prometheus.Collector{
		Decisions, CheckSeconds, RoundTrips, ChecksSent, BreakerOpen, Events, EventsPending,
		Deliveries, SpoolBytes, SpoolErrors,
	}
	for _, collector := range all {
		err := registry.Register(collector)
		var already prometheus.AlreadyRegisteredError
		if err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}
