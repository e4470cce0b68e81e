package gateway

import (
	"errors"

	"github.com/caddyserver/caddy/v2"

	"weir/gateway/ship"
)

const appName = "weir"

var errSharedSpool = errors.New("weir: two handlers share a spool but not endpoints and token; " +
	"give each a folder of its own")

// App starts what handlers need once their configuration is really used: a configuration that is
// only validated, or refused, is provisioned and changes nothing that runs. Handlers bring it
// along; nobody configures it.
type App struct {
	uses []*use
	// before is the configuration that ran when this one was started.
	before caddy.Context
	undo   []func()
}

// use is what a configuration wants of a sender, which may be running for an earlier one.
type use struct {
	sender *ship.Sender
	// target tells handlers that contradict each other.
	target string
	// apply brings the configuration's settings to the sender, and gives what takes them back.
	apply func() (undo func())
}

// CaddyModule tells Caddy of the module.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

// add notes what a handler wants; of several with one sender the last one's settings hold.
func (a *App) add(wanted use) error {
	for _, other := range a.uses {
		if other.sender != wanted.sender {
			continue
		}
		if other.target != wanted.target {
			return errSharedSpool
		}
		other.apply = wanted.apply
		return nil
	}
	a.uses = append(a.uses, &wanted)
	return nil
}

// Start brings the settings to the senders, opens spools and begins to send. It fails when a spool
// cannot be used; then everything is as it was.
func (a *App) Start() error {
	a.before = caddy.ActiveContext()
	for _, used := range a.uses {
		a.undo = append(a.undo, used.apply())
		if err := used.sender.Start(); err != nil {
			a.takeBack()
			return err
		}
	}
	return nil
}

// Stop ends no sender: requests of this configuration may still run, and the senders end after
// them. But when another app could not start, this configuration never became the active one, and
// the senders go on for the one before.
func (a *App) Stop() error {
	if caddy.ActiveContext().Context == a.before.Context {
		a.takeBack()
	}
	return nil
}

func (a *App) takeBack() {
	for i := len(a.undo) - 1; i >= 0; i-- {
		a.undo[i]()
	}
	a.undo = nil
}

var _ caddy.App = (*App)(nil)
