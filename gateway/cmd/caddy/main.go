// Command caddy is Caddy with its standard modules and Weir's.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "weir/gateway"
)

func main() { caddycmd.Main() }
