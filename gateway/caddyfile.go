package gateway

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
)

func parseDirective(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(helper.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}

// UnmarshalCaddyfile reads the directive:
//
//	weir {
//	    endpoint      URL...
//	    token         TOKEN
//	    key           {header.X-Subscription-Key}
//	    cost          UNITS
//	    timeout       100ms
//	    fail          open | closed | local N/WINDOW
//	    flush         5s
//	    batch         1000
//	    buffer        50000
//	    spool         DIR
//	    spool_max     256MiB
//	    denial_repeat 1s
//	    coalesce      on | off
//	    shadow
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	given := map[string]bool{}
	for d.NextBlock(0) {
		option := d.Val()
		if given[option] && option != "endpoint" {
			return d.Errf("%s is given twice", option)
		}
		given[option] = true
		if err := h.unmarshalOption(d, option); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	args := d.RemainingArgs()
	switch option {
	case "endpoint":
		if len(args) == 0 {
			return d.ArgErr()
		}
		h.Endpoints = append(h.Endpoints, args...)
		return nil
	case "shadow":
		if len(args) > 0 {
			return d.ArgErr()
		}
		h.Shadow = true
		return nil
	case "fail":
		return h.unmarshalFail(d, args)
	}
	if len(args) != 1 {
		return d.ArgErr()
	}
	value := args[0]
	switch option {
	case "token":
		h.Token = value
	case "key":
		h.Key = value
	case "cost":
		h.Cost = value
	case "spool":
		h.Spool = value
	case "timeout":
		return positiveDuration(d, option, value, &h.Timeout)
	case "flush":
		return positiveDuration(d, option, value, &h.Flush)
	case "denial_repeat":
		parsed, err := caddy.ParseDuration(value)
		if err != nil {
			return d.Errf("%s: %v", option, err)
		}
		repeat := caddy.Duration(parsed)
		h.DenialRepeat = &repeat
	case "batch":
		return positiveCount(d, option, value, &h.Batch)
	case "buffer":
		return positiveCount(d, option, value, &h.Buffer)
	case "spool_max":
		bytes, err := humanize.ParseBytes(value)
		if err != nil || bytes > 1<<62 {
			return d.Errf("%s must be a size such as 256MiB, not %q", option, value)
		}
		h.SpoolMax = int64(bytes)
	case "coalesce":
		if value != "on" && value != "off" {
			return d.Errf("coalesce must be on or off, not %q", value)
		}
		together := value == "on"
		h.Coalesce = &together
	default:
		return d.Errf("unrecognized option %q", option)
	}
	return nil
}

func (h *Handler) unmarshalFail(d *caddyfile.Dispenser, args []string) error {
	switch {
	case len(args) == 1 && (args[0] == FailOpen || args[0] == FailClosed):
		h.Fail = &Fail{Mode: args[0]}
		return nil
	case len(args) == 2 && args[0] == FailLocal:
		count, window, ok := strings.Cut(args[1], "/")
		limit, err := strconv.ParseUint(count, 10, 53)
		if !ok || err != nil || limit == 0 {
			return d.Errf("fail local takes UNITS/WINDOW, e.g. 50/1s, not %q", args[1])
		}
		h.Fail = &Fail{Mode: FailLocal, Limit: limit}
		return positiveDuration(d, "fail local", window, &h.Fail.Window)
	default:
		return d.Errf("fail must be `open`, `closed` or `local UNITS/WINDOW`")
	}
}

func positiveDuration(
	d *caddyfile.Dispenser, option, value string, to *caddy.Duration,
) error {
	parsed, err := caddy.ParseDuration(value)
	if err != nil || parsed <= 0 {
		return d.Errf("%s must be a duration above 0 such as 100ms, not %q", option, value)
	}
	*to = caddy.Duration(parsed)
	return nil
}

func positiveCount(d *caddyfile.Dispenser, option, value string, to *int) error {
	parsed, err := strconv.Atoi(value)
	if err != nil || parsed < 1 {
		return d.Errf("%s must be a number above 0, not %q", option, value)
	}
	*to = parsed
	return nil
}
