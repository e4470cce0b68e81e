package ship

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"weir/gateway/metrics"
)

const (
	// batchBytesMax keeps a body well under the 8 MiB that a node takes.
	batchBytesMax = 4 << 20
	syncEvery     = 200 * time.Millisecond
	// A sender that no configuration needs any longer lives on until the requests that use it have
	// ended and its events are taken; it gives up when no node took any for so long.
	lingerMax = 10 * time.Minute
	// How often a closed sender looks whether its last requests have ended.
	closedPoll  = 20 * time.Millisecond
	dialTimeout = 5 * time.Second
)

// Tuning may change while a Sender runs.
type Tuning struct {
	// Flush is how long an event waits at most before it is sent.
	Flush time.Duration
	// Batch events are sent at once, and as soon as there are so many.
	Batch int
	// Buffer is how many events are kept in memory; those beyond are dropped and counted.
	Buffer int
	// SpoolBytesMax bounds the spool on disk.
	SpoolBytesMax int64
}

// Sender takes events and brings them to Weir. Safe for many callers; none ever waits.
type Sender struct {
	spoolDir    string
	client      *http.Client
	logger      atomic.Pointer[zap.Logger]
	destination atomic.Pointer[Destination]
	tuning      atomic.Pointer[Tuning]
	// requests run between Enter and Leave.
	requests atomic.Int64

	startOnce sync.Once
	startErr  error
	wake      chan struct{}
	closing   chan struct{}
	closeOnce sync.Once
	ctx       context.Context
	cancel    context.CancelFunc

	mu     sync.Mutex
	memory [][]byte
	// held are events of memory that are being sent.
	held int
	// running says that a goroutine sends, and stopped is closed when it ends; dead says that no
	// other may follow.
	running, dead bool
	stopped       chan struct{}
	spool         atomic.Pointer[spool]
}

// Ticket stands for a request between Begin and End.
type Ticket struct {
	id uuid.UUID
	// began is the spool's segment, 0 when the request is not noted there.
	began uint64
}

// New makes a Sender; it reads and sends nothing before Start. An empty spoolDir keeps events in
// memory.
func New(spoolDir string, to Destination, tuning Tuning, logger *zap.Logger) *Sender {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sender{
		spoolDir: spoolDir,
		client: &http.Client{
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
				TLSHandshakeTimeout: dialTimeout,
				IdleConnTimeout:     time.Minute,
			},
			// The token stays with the nodes that were named.
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		ctx:     ctx, cancel: cancel,
	}
	s.set(&to, &tuning, logger)
	return s
}

// Retune lets a new configuration use the Sender; what waits goes to the new destination. undo
// brings the settings back that were there before.
func (s *Sender) Retune(to Destination, tuning Tuning, logger *zap.Logger) (undo func()) {
	oldTo, oldTuning, oldLogger := s.destination.Load(), s.tuning.Load(), s.logger.Load()
	s.set(&to, &tuning, logger)
	return func() { s.set(oldTo, oldTuning, oldLogger) }
}

func (s *Sender) set(to *Destination, tuning *Tuning, logger *zap.Logger) {
	if logger == nil {
		logger = zap.NewNop()
	}
	s.destination.Store(to)
	s.tuning.Store(tuning)
	s.logger.Store(logger)
	if disk := s.spool.Load(); disk != nil {
		disk.resize(tuning.SpoolBytesMax)
	}
}

// Start opens the spool and begins to send; again, it does nothing. It fails when the spool cannot
// be used; events are then kept in memory.
func (s *Sender) Start() error {
	s.startOnce.Do(func() {
		if err := s.open(); err != nil && !errors.Is(err, errSpoolLingers) {
			s.startErr = err
		}
		s.mu.Lock()
		s.runLocked()
		s.mu.Unlock()
	})
	return s.startErr
}

// runLocked lets a goroutine send if none does. Called with the lock held.
func (s *Sender) runLocked() {
	if !s.running {
		s.running, s.stopped = true, make(chan struct{})
		go s.run(s.stopped)
	}
}

// open opens the spool unless it is open or there is none.
func (s *Sender) open() error {
	if s.spoolDir == "" || s.spool.Load() != nil || s.startErr != nil {
		return nil
	}
	opened, err := openSpool(s.spoolDir, s.tuning.Load().SpoolBytesMax)
	if err != nil {
		return err
	}
	pending, _ := opened.counts()
	metrics.EventsPending.Add(float64(pending))
	s.spool.Store(opened)
	go s.syncSpool(opened)
	return nil
}

// Enter says that a request may bring an event, before anything else is done about it; Leave ends
// that. A Sender that was closed meanwhile waits for it.
func (s *Sender) Enter() { s.requests.Add(1) }

// Leave says that a request brings no more events.
func (s *Sender) Leave() { s.requests.Add(-1) }

// Begin says that a request is about to be forwarded. intent is what is reported if the process is
// killed before End.
func (s *Sender) Begin(intent *Event) Ticket {
	ticket := Ticket{id: intent.ID}
	disk := s.spool.Load()
	if disk == nil {
		return ticket
	}
	json, err := intent.encode()
	if err == nil {
		ticket.began, err = disk.begin(intent.ID, json)
	}
	if err != nil {
		// The event itself may still fit; what is lost is only the note that it began.
		metrics.SpoolErrors.Inc()
	}
	return ticket
}

// End takes the request's event.
func (s *Sender) End(ticket Ticket, event *Event) { s.put(ticket, event) }

// Put takes an event without Begin.
func (s *Sender) Put(event *Event) { s.put(Ticket{id: event.ID}, event) }

func (s *Sender) put(ticket Ticket, event *Event) {
	json, err := event.encode()
	if err != nil {
		metrics.Events.WithLabelValues("dropped").Inc()
		return
	}
	waiting := 0
	if disk := s.spool.Load(); disk != nil {
		if err := disk.end(event.ID, json, ticket.began); err == nil {
			waiting, _ = disk.counts()
			metrics.EventsPending.Inc()
			s.wakeAt(waiting)
			return
		}
		metrics.SpoolErrors.Inc()
		disk.abandon(ticket.began)
	}
	s.mu.Lock()
	if s.dead || len(s.memory)+s.held >= s.tuning.Load().Buffer {
		s.mu.Unlock()
		metrics.Events.WithLabelValues("dropped").Inc()
		return
	}
	s.memory = append(s.memory, json)
	waiting = len(s.memory)
	if s.closed() {
		// A request of a configuration long gone came through only now.
		s.runLocked()
		lingering.Store(s, nil)
	}
	s.mu.Unlock()
	metrics.EventsPending.Inc()
	s.wakeAt(waiting)
}

// wakeAt wakes the sender when a batch is full.
func (s *Sender) wakeAt(waiting int) {
	if waiting < s.tuning.Load().Batch {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close sends what waits and ends the Sender. With wait it returns when all is sent or the time is
// over; what is left then stays in the spool or is dropped and counted. Without (at a reload) it
// returns at once: requests of the old configuration still run, and the Sender lives until they
// have ended and their events are taken. Whatever comes even later is sent, too.
func (s *Sender) Close(wait time.Duration) {
	started := true
	s.startOnce.Do(func() { started = false })
	s.closeOnce.Do(func() { close(s.closing) })
	if !started {
		return
	}
	if wait == 0 {
		s.mu.Lock()
		if s.running {
			lingering.Store(s, nil)
		}
		s.mu.Unlock()
		return
	}
	s.await(wait)
}

func (s *Sender) closed() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// lingering are Senders that were closed by a reload and still send.
var lingering sync.Map

// Drain gives Senders of earlier configurations their last time before the process ends.
func Drain(wait time.Duration) {
	deadline := time.Now().Add(wait)
	lingering.Range(func(other, _ any) bool {
		if one, ok := other.(*Sender); ok {
			one.await(time.Until(deadline))
		}
		return true
	})
}

func (s *Sender) await(wait time.Duration) {
	timer := time.AfterFunc(wait, s.cancel)
	defer timer.Stop()
	s.mu.Lock()
	stopped := s.stopped
	s.mu.Unlock()
	<-stopped
}

// run sends until the Sender is closed, no request runs and nothing waits.
func (s *Sender) run(stopped chan struct{}) {
	defer close(stopped)
	// What an earlier process left is not kept waiting.
	s.sendAll()
	for {
		wait, closing := jittered(s.tuning.Load().Flush), s.closing
		if s.closed() {
			wait, closing = closedPoll, nil
		}
		flush := time.NewTimer(wait)
		select {
		case <-s.wake:
		case <-flush.C:
		case <-closing:
		case <-s.ctx.Done():
		}
		flush.Stop()
		if !s.closed() {
			if err := s.open(); err != nil && !errors.Is(err, errSpoolLingers) {
				s.logger.Load().Error("spool cannot be opened; events stay in memory", zap.Error(err))
			}
		}
		idle := s.closed() && s.requests.Load() == 0
		disk, seen := s.spool.Load(), uint64(0)
		if disk != nil {
			seen = disk.puts()
		}
		s.sendAll()
		if s.ctx.Err() != nil {
			s.give(s.spool.Swap(nil))
			s.die()
			return
		}
		if idle && s.finish(disk, seen) {
			s.give(disk)
			return
		}
	}
}

// syncSpool brings the spool to the disk and its size to the metrics, every moment until it is
// closed.
func (s *Sender) syncSpool(disk *spool) {
	reported := int64(0)
	report := func(bytes int64) {
		metrics.SpoolBytes.Add(float64(bytes - reported))
		reported = bytes
	}
	ticker := time.NewTicker(syncEvery)
	defer ticker.Stop()
	for {
		select {
		case <-disk.gone:
			report(0)
			return
		case <-ticker.C:
		}
		_, bytes := disk.counts()
		report(bytes)
		if err := disk.sync(); err != nil {
			s.logger.Load().Warn("spool was not synced", zap.Error(err))
		}
	}
}

// finish ends the goroutine unless a request or an event came meanwhile; seen is what the spool had
// taken before it was last worked off. What comes afterwards finds the spool closed, goes to memory
// and starts another goroutine.
func (s *Sender) finish(disk *spool, seen uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.memory) > 0 || s.requests.Load() > 0 || s.spool.Load() != disk {
		return false
	}
	// Not whether any are pending: those that could not be read now would keep it for ever.
	if disk != nil && !disk.closeUnlessPut(seen) {
		return false
	}
	s.spool.Store(nil)
	s.running = false
	lingering.Delete(s)
	return true
}

// give lets go of the spool.
func (s *Sender) give(disk *spool) {
	if disk != nil {
		if err := disk.sync(); err != nil {
			s.logger.Load().Warn("spool was not synced", zap.Error(err))
		}
		pending, _ := disk.counts()
		metrics.EventsPending.Sub(float64(pending))
		disk.close()
		if pending > 0 {
			s.logger.Load().Warn("events stay in the spool", zap.Int("events", pending))
		}
	}
	s.client.CloseIdleConnections()
}

// die drops what nobody took in time, and lets no other goroutine follow.
func (s *Sender) die() {
	s.mu.Lock()
	s.running, s.dead = false, true
	lingering.Delete(s)
	lost := len(s.memory)
	s.memory = nil
	s.mu.Unlock()
	if lost == 0 {
		return
	}
	metrics.EventsPending.Sub(float64(lost))
	metrics.Events.WithLabelValues("dropped").Add(float64(lost))
	s.logger.Load().Error("events are lost", zap.Int("events", lost))
}
