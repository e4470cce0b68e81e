package ship

// How a Sender empties itself: batch by batch, each until a node took it.

import (
	"time"

	"go.uber.org/zap"

	"weir/gateway/metrics"
)

// sendAll sends what waits, as long as that is more than a batch: what comes meanwhile makes the
// next one.
func (s *Sender) sendAll() {
	for more := true; more && s.ctx.Err() == nil; {
		fromMemory, fromSpool := s.sendMemory(), s.sendSpool()
		more = fromMemory || fromSpool
	}
}

// sendMemory sends a batch; more says that more had waited.
func (s *Sender) sendMemory() (more bool) {
	s.mu.Lock()
	count, bytes := 0, 0
	most := s.tuning.Load().Batch
	for count < len(s.memory) && count < most && bytes < batchBytesMax {
		bytes += len(s.memory[count])
		count++
	}
	batch := s.memory[:count:count]
	s.memory = s.memory[count:]
	more = len(s.memory) > 0
	if len(s.memory) == 0 {
		s.memory = nil
	}
	s.held = count
	s.mu.Unlock()
	if count == 0 {
		return false
	}
	done := s.deliver(batch)
	s.mu.Lock()
	s.held = 0
	if !done {
		s.memory = append(batch, s.memory...)
	}
	s.mu.Unlock()
	if done {
		metrics.EventsPending.Sub(float64(count))
	}
	return more
}

// sendSpool sends a batch; more says that more had waited.
func (s *Sender) sendSpool() (more bool) {
	disk := s.spool.Load()
	if disk == nil {
		return false
	}
	records, position, more, err := disk.next(s.tuning.Load().Batch, batchBytesMax)
	if err != nil {
		s.logger.Load().Error("spool cannot be read", zap.Error(err))
		return false
	}
	if len(records) == 0 {
		return false
	}
	batch := make([][]byte, len(records))
	for i, r := range records {
		batch[i] = r.json
	}
	if !s.deliver(batch) {
		return false
	}
	if err := disk.ack(position, len(records)); err != nil {
		// They are sent again after a restart, and counted once.
		s.logger.Load().Warn("spool's position was not written", zap.Error(err))
	}
	metrics.EventsPending.Sub(float64(len(records)))
	return more
}

// deliver tries until the batch is taken; false when the sender is stopped before.
func (s *Sender) deliver(batch [][]byte) bool {
	packed, err := body(batch)
	if err != nil {
		s.logger.Load().Error("events cannot be packed", zap.Error(err))
		metrics.Events.WithLabelValues("dropped").Add(float64(len(batch)))
		return true
	}
	begun := time.Now()
	for try := 0; s.ctx.Err() == nil; try++ {
		to := s.destination.Load()
		endpoint := to.Endpoints[try%len(to.Endpoints)]
		taken, err := post(s.ctx, s.client, endpoint, to.Token, packed)
		if err == nil {
			s.taken(taken, try)
			return true
		}
		metrics.Deliveries.WithLabelValues("failed").Inc()
		if isContent(err) {
			return s.divide(batch, err)
		}
		s.logger.Load().Warn("events were not taken; trying again",
			zap.String("endpoint", endpoint), zap.Int("events", len(batch)),
			zap.Int("try", try+1), zap.Error(err))
		if s.closed() && time.Since(begun) > lingerMax {
			s.cancel()
			return false
		}
		// The other endpoints first, then patience.
		round := try / len(to.Endpoints)
		if (try+1)%len(to.Endpoints) != 0 {
			continue
		}
		s.pause(backOff(round, err))
	}
	return false
}

// divide halves a batch that a node refuses for what is in it, until the culprit is alone.
func (s *Sender) divide(batch [][]byte, cause error) bool {
	if len(batch) == 1 {
		s.logger.Load().Error("an event is refused and dropped",
			zap.ByteString("event", batch[0]), zap.Error(cause))
		metrics.Events.WithLabelValues("rejected").Inc()
		return true
	}
	middle := len(batch) / 2
	return s.deliver(batch[:middle:middle]) && s.deliver(batch[middle:])
}

func (s *Sender) taken(taken verdict, tries int) {
	metrics.Deliveries.WithLabelValues("ok").Inc()
	metrics.Events.WithLabelValues("accepted").Add(float64(taken.Accepted))
	metrics.Events.WithLabelValues("duplicate").Add(float64(taken.Duplicates))
	metrics.Events.WithLabelValues("rejected").Add(float64(len(taken.Rejected)))
	if len(taken.Rejected) > 0 {
		first := taken.Rejected[0]
		s.logger.Load().Warn("events were rejected", zap.Int("count", len(taken.Rejected)),
			zap.String("first", first.ID), zap.String("code", first.Code),
			zap.String("detail", first.Detail))
	}
	if tries > 0 {
		s.logger.Load().Info("events are taken again", zap.Int("tries", tries+1))
	}
}

// pause waits between tries, but not through the closing of the sender: then one more try is made
// at once, and the others follow quickly.
func (s *Sender) pause(d time.Duration) {
	closing := s.closing
	select {
	case <-closing:
		closing = nil
		d = min(d, backOffClosing)
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-closing:
	case <-s.ctx.Done():
	}
}
