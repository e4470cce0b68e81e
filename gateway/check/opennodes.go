package check

import (
	"sync"

	"weir/gateway/metrics"
)

// openNodes shows which endpoints are left alone. After a reload the checkers of two configurations
// may have the same endpoint for a while, so it is shown as long as one of them leaves it alone.
var openNodes = openSet{nodes: map[string]map[*node]bool{}}

type openSet struct {
	mu sync.Mutex
	// nodes that are left alone, by their endpoints.
	nodes map[string]map[*node]bool
}

func (o *openSet) set(n *node, open bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n.ctx.Err() != nil {
		// Forgotten, or about to be.
		return
	}
	switch {
	case !open:
		delete(o.nodes[n.base], n)
	case o.nodes[n.base] == nil:
		o.nodes[n.base] = map[*node]bool{n: true}
	default:
		o.nodes[n.base][n] = true
	}
	shown := 0.0
	if len(o.nodes[n.base]) > 0 {
		shown = 1
	}
	metrics.BreakerOpen.WithLabelValues(n.base).Set(shown)
}

// forget takes back what is shown of a node whose context has ended.
func (o *openSet) forget(n *node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.nodes[n.base], n)
	if len(o.nodes[n.base]) == 0 {
		delete(o.nodes, n.base)
		metrics.BreakerOpen.DeleteLabelValues(n.base)
	}
}
