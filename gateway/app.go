package gateway

import (
	"slices"

	"github.com/caddyserver/caddy/v2"

	"weir/gateway/ship"
)

const appName = "weir"

// App starts what handlers need once their configuration is really used: a configuration that is
// only validated is provisioned and never started. Handlers bring it along; nobody configures it.
type App struct {
	senders []*ship.Sender
}

// CaddyModule tells Caddy of the module.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

func (a *App) add(sender *ship.Sender) {
	if !slices.Contains(a.senders, sender) {
		a.senders = append(a.senders, sender)
	}
}

// Start opens spools and begins to send. It fails when a spool cannot be used.
func (a *App) Start() error {
	for _, sender := range a.senders {
		if err := sender.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Stop does nothing: requests of this configuration may still run, and the senders end after them.
func (a *App) Stop() error { return nil }

var _ caddy.App = (*App)(nil)
