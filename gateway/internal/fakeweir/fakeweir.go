// Package fakeweir is a small Weir that fails on demand, for tests of faults which a real node does
// not make when asked: slow, down, refusing, losing its answers. It decides from a table and keeps
// a ledger by event id.
package fakeweir

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Token is the only one it takes.
const Token = "fake-token"

// Fault is what goes wrong with one exchange; the zero value is none.
type Fault struct {
	// Status answers this instead of 200.
	Status int
	// Code makes the answer with Status a problem document, as a node's are; without, it is some
	// other server's.
	Code string
	// RetryAfter goes with Status, in seconds.
	RetryAfter string
	// Wait holds the answer back until it is closed or the client leaves.
	Wait <-chan struct{}
	// LoseAnswer does the work, then cuts the connection.
	LoseAnswer bool
}

// Server is the fake. Its fields may be set before the first request.
type Server struct {
	*httptest.Server
	// ID and Owner: who it is, and who it says decides; empty Owner is itself.
	ID, Owner string
	// Decide answers a check; nil allows everything.
	Decide func(key string, cost uint64) map[string]any
	// Nodes answers /api/v1/cluster; nil answers 403.
	Nodes map[string]string

	mu       sync.Mutex
	fault    func(path string) Fault
	trips    []int
	decided  map[string]int
	ledger   map[string]json.RawMessage
	batches  [][]string
	ready    bool
	doubles  int
	rejected map[string]bool
}

// New starts a fake that is well.
func New() *Server {
	s := &Server{
		ID: "fake-1", ready: true, decided: map[string]int{},
		ledger: map[string]json.RawMessage{}, rejected: map[string]bool{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/quota/check", s.check)
	mux.HandleFunc("/api/v1/usage/events", s.events)
	mux.HandleFunc("/api/v1/cluster", s.cluster)
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	s.Server = httptest.NewServer(mux)
	return s
}

// Break lets a function say what goes wrong with each exchange; nil makes it well again.
func (s *Server) Break(fault func(path string) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// SetReady says what /readyz answers.
func (s *Server) SetReady(ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = ready
}

// Trips are the checks that each round trip carried.
func (s *Server) Trips() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.trips...)
}

// Decided is how often a request id was asked about.
func (s *Server) Decided(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decided[id]
}

// Ledger are the events by their ids, and how many came more than once.
func (s *Server) Ledger() (events map[string]json.RawMessage, doubles int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events = make(map[string]json.RawMessage, len(s.ledger))
	for id, event := range s.ledger {
		events[id] = event
	}
	return events, s.doubles
}

// Batches are the ids of every batch that arrived, also of those that were not taken.
func (s *Server) Batches() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]string(nil), s.batches...)
}

// Poison makes every batch with this id be refused with 422.
func (s *Server) Poison(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected[id] = true
}

// broken plays the fault of an exchange; true when it has answered.
func (s *Server) broken(w http.ResponseWriter, r *http.Request) (Fault, bool) {
	s.mu.Lock()
	choose := s.fault
	s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+Token {
		w.WriteHeader(http.StatusUnauthorized)
		return Fault{}, true
	}
	if choose == nil {
		return Fault{}, false
	}
	fault := choose(r.URL.Path)
	if fault.Wait != nil {
		select {
		case <-fault.Wait:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if fault.Status != 0 {
		if fault.RetryAfter != "" {
			w.Header().Set("Retry-After", fault.RetryAfter)
		}
		if fault.Code != "" {
			refuse(w, fault.Status, fault.Code)
		} else {
			w.WriteHeader(fault.Status)
		}
		return fault, true
	}
	return fault, false
}

type asked struct {
	Key       string  `json:"subscriptionKey"`
	Cost      *uint64 `json:"cost"`
	RequestID string  `json:"requestId"`
}

func (s *Server) check(w http.ResponseWriter, r *http.Request) {
	var checks []asked
	single := r.Method == http.MethodGet
	if single {
		one := asked{Key: r.Header.Get("X-Subscription-Key"), RequestID: r.Header.Get("Idempotency-Key")}
		if text := r.URL.Query().Get("cost"); text != "" {
			var cost uint64
			fmt.Sscan(text, &cost)
			one.Cost = &cost
		}
		checks = []asked{one}
	} else {
		var body struct {
			Checks []asked `json:"checks"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		checks = body.Checks
	}
	s.mu.Lock()
	s.trips = append(s.trips, len(checks))
	for _, one := range checks {
		s.decided[one.RequestID]++
	}
	s.mu.Unlock()
	fault, done := s.broken(w, r)
	if done {
		return
	}
	results := make([]map[string]any, len(checks))
	for i, one := range checks {
		results[i] = s.decide(one)
	}
	if fault.LoseAnswer {
		panic(http.ErrAbortHandler)
	}
	owner, hops := s.ID, "0"
	if s.Owner != "" && s.Owner != s.ID {
		owner, hops = s.Owner, "1"
	}
	w.Header().Set("X-Weir-Owner", owner)
	w.Header().Set("X-Weir-Hops", hops)
	if single {
		write(w, results[0])
		return
	}
	write(w, map[string]any{"results": results})
}

func (s *Server) decide(one asked) map[string]any {
	cost := uint64(1)
	if one.Cost != nil {
		cost = *one.Cost
	}
	if s.Decide != nil {
		return s.Decide(one.Key, cost)
	}
	return Allowed()
}

// Allowed is a decision that lets pass.
func Allowed() map[string]any {
	return map[string]any{
		"allowed": true, "reason": "ok", "subscriptionId": "019ab7c0-0000-7000-8000-000000000001",
		"limit": nil, "used": 0, "pending": 1, "remaining": nil, "retryAfter": 0, "mode": "enforced",
		"quotas": []any{}, "rate": []any{}, "violated": []any{}, "periodStart": nil, "resetAt": nil,
	}
}

// Denied is a decision that refuses for a quota until reset.
func Denied(reason string, reset time.Duration) map[string]any {
	d := Allowed()
	d["allowed"], d["reason"] = false, reason
	d["limit"], d["remaining"], d["violated"] = 10, 0, []any{"requests"}
	d["resetAt"] = time.Now().Add(reset).UTC().Format(time.RFC3339Nano)
	d["retryAfter"] = int((reset + time.Second - 1) / time.Second)
	return d
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	unzipped, err := gzip.NewReader(r.Body)
	if err != nil || r.Header.Get("Content-Encoding") != "gzip" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	text, err := io.ReadAll(unzipped)
	var events []json.RawMessage
	if err != nil || json.Unmarshal(text, &events) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	ids := make([]string, len(events))
	poisoned := false
	s.mu.Lock()
	for i, event := range events {
		var named struct {
			ID string `json:"id"`
		}
		_ = json.Unmarshal(event, &named)
		ids[i] = named.ID
		poisoned = poisoned || s.rejected[named.ID]
	}
	s.batches = append(s.batches, ids)
	s.mu.Unlock()
	fault, done := s.broken(w, r)
	if done {
		return
	}
	if poisoned {
		refuse(w, http.StatusUnprocessableEntity, "invalid_event")
		return
	}
	accepted, duplicates := 0, 0
	s.mu.Lock()
	for i, id := range ids {
		if s.ledger[id] != nil {
			duplicates++
			continue
		}
		s.ledger[id] = events[i]
		accepted++
	}
	s.doubles += duplicates
	s.mu.Unlock()
	if fault.LoseAnswer {
		panic(http.ErrAbortHandler)
	}
	write(w, map[string]any{"accepted": accepted, "duplicates": duplicates, "rejected": []any{}})
}

func (s *Server) cluster(w http.ResponseWriter, _ *http.Request) {
	if s.Nodes == nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	nodes := []any{}
	for id, address := range s.Nodes {
		nodes = append(nodes, map[string]any{"id": id, "http": address})
	}
	write(w, map[string]any{"nodes": nodes})
}

// refuse answers as a node refuses.
func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "code": code})
}

func write(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	// A client that left is no matter of the fake's.
	_ = json.NewEncoder(w).Encode(value)
}
