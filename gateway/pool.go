package gateway

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"weir/gateway/check"
	"weir/gateway/ship"
)

// drainTime bounds what sending the last events may add to the end of the process.
const drainTime = 5 * time.Second

// Checkers and senders outlive configurations: a reload hands them from the old handlers to the
// new, with connections, breakers, refusals and events that wait.
var (
	checkers = caddy.NewUsagePool()
	senders  = caddy.NewUsagePool()
)

type pooledChecker struct{ *check.Checker }

// Destruct ends a checker that no configuration uses. Requests that still ask fall to the fail
// policy, so it waits until the longest of them had its time.
func (c pooledChecker) Destruct() error {
	time.AfterFunc(2*timeoutMax, c.Close)
	return nil
}

type pooledSender struct{ *ship.Sender }

// Destruct ends a sender that no configuration uses: at a reload its requests still run, at the end
// of the process they have ended.
func (s pooledSender) Destruct() error {
	if caddy.Exiting() {
		s.Close(drainTime)
	} else {
		s.Close(0)
	}
	return nil
}

// fingerprint keeps the token itself out of keys that could be printed.
func fingerprint(parts ...string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(parts, "\x00"))))
}
