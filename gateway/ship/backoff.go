package ship

import (
	"errors"
	"math/rand/v2"
	"time"
)

const (
	backOffMin = 100 * time.Millisecond
	backOffMax = 10 * time.Second
	// backOffClosing is the longest wait of a sender that is closed.
	backOffClosing = 250 * time.Millisecond
)

// backOff is how long to wait after a round of tries: doubled each round, or what the node asks for
// when that is longer, at most backOffMax, and spread so that gateways do not return as one.
func backOff(round int, err error) time.Duration {
	wait := backOffMin << min(round, 10)
	var refused *refusedError
	if errors.As(err, &refused) {
		wait = max(wait, refused.after)
	}
	return jittered(min(wait, backOffMax))
}

// jittered is 75 to 125 % of a duration.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2))
}
