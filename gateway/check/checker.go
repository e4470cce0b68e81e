package check

import (
	"context"
	"errors"
	"hash/maphash"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// ownersMax bounds what is remembered about keys: about 150 bytes each.
	ownersMax = 100_000
	// attemptsMax nodes are asked about one request; a third answer rarely comes in time.
	attemptsMax = 3
	// learnedMax nodes may be added to those of the configuration.
	learnedMax = 64
	// The cluster is asked for its nodes at most this often, and rarely when it will not tell.
	discoverEvery        = 30 * time.Second
	discoverAfterRefusal = 10 * time.Minute
	idleConnsMax         = 64
)

// Config of a Checker.
type Config struct {
	// Endpoints are base URLs of nodes, without a slash at the end.
	Endpoints []string
	Token     string
	// Timeout bounds what asking may add to one request, whatever happens.
	Timeout time.Duration
	// DenialRepeat is how long a refusal is repeated without asking.
	DenialRepeat time.Duration
	// Together lets checks for one node share a round trip.
	Together bool
	Logger   *zap.Logger
}

// Checker asks a set of nodes. Safe for many callers.
type Checker struct {
	config  Config
	nodes   []*node
	denials *denials
	seed    maphash.Seed
	client  *http.Client
	ctx     context.Context
	cancel  context.CancelFunc

	mu sync.Mutex
	// byID are nodes that told their id or that the cluster named.
	byID       map[string]*node
	owners     generations[string, string]
	discoverAt time.Time
	warnedAt   time.Time
}

// New makes a Checker; it speaks with nobody until it is asked.
func New(config Config) *Checker {
	ctx, cancel := context.WithCancel(context.Background())
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	c := &Checker{
		config:  config,
		denials: newDenials(config.DenialRepeat),
		seed:    maphash.MakeSeed(),
		client:  &http.Client{Transport: Transport(), CheckRedirect: noRedirect},
		ctx:     ctx, cancel: cancel,
		byID:   map[string]*node{},
		owners: newGenerations[string, string](ownersMax),
	}
	for _, endpoint := range config.Endpoints {
		c.nodes = append(c.nodes, c.newNode(endpoint))
	}
	return c
}

// Transport gives connections to nodes: kept open, without a proxy, as checks count microseconds.
func Transport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConnsPerHost: idleConnsMax,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second,
		DisableCompression:  true,
		ForceAttemptHTTP2:   false,
	}
}

// noRedirect keeps the token with the nodes that were named.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (c *Checker) newNode(endpoint string) *node {
	n := &node{
		wire:     wire{base: endpoint, token: c.config.Token, client: c.client},
		timeout:  c.config.Timeout,
		together: c.config.Together,
		ctx:      c.ctx,
		logger:   c.config.Logger,
		learn:    c.learn,
	}
	n.breaker.probe = n.probeLater
	return n
}

// Close ends probes and connections. Checks that are on their way end unanswered.
func (c *Checker) Close() {
	c.cancel()
	c.mu.Lock()
	nodes := slices.AppendSeq(slices.Clone(c.nodes), maps.Values(c.byID))
	c.mu.Unlock()
	for _, n := range nodes {
		openNodes.forget(n)
	}
	c.client.CloseIdleConnections()
}

// Ask decides about one request: by a node or by a refusal that still holds (cached is true then).
// Otherwise it fails with an [UndecidedError], after the time-out at the latest, or with a
// [RefusedQuestionError].
func (c *Checker) Ask(q *Question) (decision *Decision, cached bool, err error) {
	now := time.Now()
	if denial := c.denials.fresh(q, now); denial != nil {
		return denial, true, nil
	}
	deadline := now.Add(c.config.Timeout)
	var last error
	candidates := c.candidates(q.Key)
	for i, n := range candidates {
		wait := time.Until(deadline)
		if wait <= 0 {
			break
		}
		// Whoever hangs gets half of the time that is left, so that the next may still answer. The
		// same id makes asking a second node safe.
		if i < len(candidates)-1 {
			wait /= 2
		}
		decision, err := n.ask(q, wait)
		if err == nil {
			c.denials.note(q, decision)
			return decision, false, nil
		}
		last = err
		var status *statusError
		if !errors.As(err, &status) {
			continue
		}
		if status.question() {
			return nil, false, &RefusedQuestionError{Cause: err}
		}
		if status.ours() {
			c.warn(n, err)
			break
		}
	}
	if denial := c.denials.standing(q, time.Now()); denial != nil {
		return denial, true, nil
	}
	return nil, false, &UndecidedError{Cause: last}
}

// warn says at most every ten seconds that the token or the questions are refused.
func (c *Checker) warn(n *node, err error) {
	c.mu.Lock()
	now := time.Now()
	quiet := now.Sub(c.warnedAt) < 10*time.Second
	if !quiet {
		c.warnedAt = now
	}
	c.mu.Unlock()
	if !quiet {
		c.config.Logger.Error("node refuses checks; is the token right?",
			zap.String("endpoint", n.base), zap.Error(err))
	}
}

// candidates are the nodes to ask, in order: the key's owner, then the others from a place that
// depends on the key, so that keys spread and one key's checks travel together.
func (c *Checker) candidates(key string) []*node {
	found := make([]*node, 0, attemptsMax)
	if owner := c.ownerOf(key); owner != nil && owner.breaker.allows() {
		found = append(found, owner)
	}
	start := 0
	if len(c.nodes) > 1 {
		start = int(maphash.String(c.seed, key) % uint64(len(c.nodes)))
	}
	for i := range c.nodes {
		n := c.nodes[(start+i)%len(c.nodes)]
		if len(found) == attemptsMax {
			break
		}
		if (len(found) == 0 || found[0] != n) && n.breaker.allows() {
			found = append(found, n)
		}
	}
	return found
}

func (c *Checker) ownerOf(key string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.owners.get(key)
	if !ok {
		return nil
	}
	return c.byID[id]
}

// learn remembers who decided about a key, and which node that is: without a hop it is the one that
// answered, else one that answered before or that the cluster names.
func (c *Checker) learn(at *node, key string, who owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners.put(key, who.id)
	if who.hops == "0" {
		if len(c.byID) < learnedMax || c.byID[who.id] != nil {
			c.byID[who.id] = at
		}
		return
	}
	if c.byID[who.id] == nil && time.Now().After(c.discoverAt) {
		c.discoverAt = time.Now().Add(discoverEvery)
		go c.discover(at)
	}
}

// discover asks for the addresses of all nodes. A token of scope gateway may not know them; then
// owners are learned from answers alone.
func (c *Checker) discover(at *node) {
	ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
	defer cancel()
	addresses, err := at.cluster(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.discoverAt = time.Now().Add(discoverAfterRefusal)
		return
	}
	for id, address := range addresses {
		base := baseLike(at.base, address)
		if base == "" || c.byID[id] != nil || len(c.byID) >= learnedMax {
			continue
		}
		c.byID[id] = c.nodeAt(base)
	}
}

// nodeAt is the configured node of this address, or a new one. Called with the lock held.
func (c *Checker) nodeAt(base string) *node {
	for _, n := range c.nodes {
		if n.base == base {
			return n
		}
	}
	return c.newNode(base)
}

// baseLike makes a base URL of a node's address. The scheme stays that of the endpoint which named
// it: a token that was sent over TLS is never sent in the clear.
func baseLike(endpoint, address string) string {
	known, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	if !strings.Contains(address, "://") {
		address = known.Scheme + "://" + address
	}
	named, err := url.Parse(address)
	if err != nil || named.Host == "" || named.Scheme != known.Scheme {
		return ""
	}
	return named.Scheme + "://" + named.Host
}
