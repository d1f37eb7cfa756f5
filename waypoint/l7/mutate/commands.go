package mutate

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// headerCommand compiles REQ(name?other) and the like; nil is none of them.
func headerCommand(name, arg string) command {
	main, other, _ := strings.Cut(strings.ToLower(arg), "?")
	switch name {
	case "REQ":
		return func(b []byte, i *exchange.Info) []byte {
			v, ok := exchange.First(i.Head, main)
			if !ok && main == ":path" {
				v = i.Path
			}
			if !ok && other != "" {
				v, _ = exchange.First(i.Head, other)
			}
			return append(b, v...)
		}
	case "RESP":
		return func(b []byte, i *exchange.Info) []byte {
			if i.Response == nil {
				return b
			}
			v, ok := exchange.First(i.Response, main)
			if !ok && other != "" {
				v, _ = exchange.First(i.Response, other)
			}
			return append(b, v...)
		}
	}
	return nil
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return b
	}
	return a.AppendTo(b)
}

func appendIP(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	return a.AppendTo(b)
}

func appendPort(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return b
	}
	return strconv.AppendUint(b, uint64(a.Port()), 10)
}

// connectionCommand compiles commands about the connection; nil is none of them.
func connectionCommand(name string) command {
	switch name {
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return func(b []byte, i *exchange.Info) []byte { return appendAddr(b, i.Remote) }
	case "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		return func(b []byte, i *exchange.Info) []byte { return appendIP(b, i.Remote.Addr()) }
	case "DOWNSTREAM_REMOTE_PORT":
		return func(b []byte, i *exchange.Info) []byte { return appendPort(b, i.Remote) }
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS":
		return func(b []byte, i *exchange.Info) []byte { return appendAddr(b, i.Conn.Source) }
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT":
		return func(b []byte, i *exchange.Info) []byte { return appendIP(b, i.Conn.Source.Addr()) }
	case "DOWNSTREAM_DIRECT_REMOTE_PORT":
		return func(b []byte, i *exchange.Info) []byte { return appendPort(b, i.Conn.Source) }
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return func(b []byte, i *exchange.Info) []byte { return appendAddr(b, i.Conn.Destination) }
	case "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return func(b []byte, i *exchange.Info) []byte { return appendIP(b, i.Conn.Destination.Addr()) }
	case "DOWNSTREAM_LOCAL_PORT":
		return func(b []byte, i *exchange.Info) []byte { return appendPort(b, i.Conn.Destination) }
	case "DOWNSTREAM_PEER_URI_SAN":
		return func(b []byte, i *exchange.Info) []byte { return append(b, i.Conn.Identity...) }
	case "DOWNSTREAM_LOCAL_URI_SAN":
		return func(b []byte, i *exchange.Info) []byte { return append(b, i.Conn.LocalIdentity...) }
	case "REQUESTED_SERVER_NAME":
		return func(b []byte, i *exchange.Info) []byte { return append(b, i.Conn.SNI...) }
	case "CONNECTION_ID":
		return func(b []byte, i *exchange.Info) []byte { return strconv.AppendUint(b, i.Conn.ID, 10) }
	}
	return nil
}

// streamCommand compiles commands about the request; nil is none of them.
func streamCommand(name, arg string) command {
	switch name {
	case "PROTOCOL":
		return func(b []byte, i *exchange.Info) []byte { return append(b, i.Head.Version.String()...) }
	case "ROUTE_NAME":
		return func(b []byte, i *exchange.Info) []byte { return append(b, i.Route...) }
	case "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW":
		return func(b []byte, i *exchange.Info) []byte { return append(b, i.Cluster...) }
	case "UPSTREAM_HOST", "UPSTREAM_REMOTE_ADDRESS":
		return func(b []byte, i *exchange.Info) []byte { return append(b, i.Upstream...) }
	case "RESPONSE_CODE":
		return func(b []byte, i *exchange.Info) []byte {
			if i.Response == nil {
				return append(b, '0')
			}
			return strconv.AppendInt(b, int64(i.Response.Status), 10)
		}
	case "START_TIME":
		if arg != "" {
			return nil
		}
		return func(b []byte, i *exchange.Info) []byte {
			return i.Now.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
		}
	case "FILTER_STATE":
		key, kind, _ := strings.Cut(arg, ":")
		if kind != "PLAIN" && kind != "" {
			return nil
		}
		return func(b []byte, i *exchange.Info) []byte {
			v, _ := i.State(key)
			return append(b, v...)
		}
	case "DYNAMIC_METADATA":
		path := strings.Split(arg, ":")
		return func(b []byte, i *exchange.Info) []byte { return appendMetadata(b, i.Metadata(path[0]), path[1:]) }
	}
	return nil
}

func appendMetadata(b []byte, md map[string]any, path []string) []byte {
	if md == nil {
		return b
	}
	var v any = md
	for _, key := range path {
		next, ok := v.(map[string]any)
		if !ok {
			return b
		}
		if v, ok = next[key]; !ok {
			return b
		}
	}
	if s, ok := v.(string); ok {
		return append(b, s...)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return b
	}
	return append(b, out...)
}

// HTTPDate is the form of the date header.
func HTTPDate(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }
