package accesslog

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/exchange"
)

// compile finds the operator that a command names.
func (c command) compile() (*operator, error) {
	if o, ok := plain()[c.name]; ok {
		if c.hasParams && c.name != "RESPONSE_CODE_DETAILS" {
			return nil, errors.New("takes no parameters")
		}
		o.limit = c.limit
		return &o, nil
	}
	if compile, ok := parametrised()[c.name]; ok {
		run, err := compile(c.params)
		if err != nil {
			return nil, err
		}
		// A typed object is JSON already.
		typed := c.name == "FILTER_STATE" && c.limit == 0 && !strings.Contains(strings.TrimSuffix(c.params, ":TYPED"), ":")
		return &operator{append: run, limit: c.limit, number: typed}, nil
	}
	return nil, errors.New("this operator is not supported")
}

type appender = func(dst []byte, r *proxy.Record) ([]byte, bool)

// parametrised are the operators that read their parameters.
func parametrised() map[string]func(params string) (appender, error) {
	return map[string]func(string) (appender, error){
		"START_TIME": startTime, "EMIT_TIME": emitTime,
		"REQ": requestHeader, "REQ_WITHOUT_QUERY": requestWithoutQuery,
		"RESP":        responseHeader(func(r *proxy.Record) *httpmsg.Header { return r.Response }),
		"TRAILER":     responseHeader(func(r *proxy.Record) *httpmsg.Header { return r.Trailer }),
		"GRPC_STATUS": grpcStatus,
		"ENVIRONMENT": func(string) (appender, error) {
			return nil, errors.New("the environment is not shown in access logs")
		},
		"CEL": expression, "METADATA": metadata, "DYNAMIC_METADATA": dynamicMetadata, "FILTER_STATE": filterState, "UPSTREAM_METADATA": nothing,
	}
}

// plain are the operators without parameters.
func plain() map[string]operator {
	return map[string]operator{
		"PROTOCOL":      str(protocol),
		"RESPONSE_CODE": num(func(r *proxy.Record) (uint64, bool) { return uint64(r.Status), true }),
		"RESPONSE_CODE_DETAILS": {append: func(dst []byte, r *proxy.Record) ([]byte, bool) {
			details := responseDetails(r)
			return appendUnspaced(dst, details), details != ""
		}},
		"CONNECTION_TERMINATION_DETAILS": str(termination),
		"UPSTREAM_TRANSPORT_FAILURE_REASON": {append: func(dst []byte, r *proxy.Record) ([]byte, bool) {
			return appendUnspaced(dst, r.UpstreamFailure), r.UpstreamFailure != ""
		}},
		"RESPONSE_FLAGS":    {append: func(dst []byte, r *proxy.Record) ([]byte, bool) { return append(dst, responseFlags(r)...), true }},
		"BYTES_RECEIVED":    num(func(r *proxy.Record) (uint64, bool) { return r.BytesReceived, true }),
		"BYTES_SENT":        num(func(r *proxy.Record) (uint64, bool) { return r.BytesSent, true }),
		"DURATION":          millis(func(r *proxy.Record) (time.Duration, bool) { return r.Duration, true }),
		"REQUEST_DURATION":  millis(func(r *proxy.Record) (time.Duration, bool) { return r.RequestDone, r.RequestDone > 0 }),
		"RESPONSE_DURATION": millis(func(r *proxy.Record) (time.Duration, bool) { return r.TimeToFirstByte, r.TimeToFirstByte > 0 }),
		"RESPONSE_TX_DURATION": millis(func(r *proxy.Record) (time.Duration, bool) {
			return r.Duration - r.TimeToFirstByte, r.TimeToFirstByte > 0
		}),
		"UPSTREAM_REQUEST_ATTEMPT_COUNT": num(attempts),
		"CONNECTION_ID":                  num(func(r *proxy.Record) (uint64, bool) { return r.ConnectionID, r.ConnectionID != 0 }),
		"ROUTE_NAME":                     str(func(r *proxy.Record) string { return r.RouteName }),
		"UPSTREAM_HOST":                  str(func(r *proxy.Record) string { return r.UpstreamHost }),
		"UPSTREAM_REMOTE_ADDRESS":        str(upstreamRemote),
		"UPSTREAM_HOST_NAME":             str(upstreamHostName),
		"UPSTREAM_CLUSTER":               str(upstreamCluster),
		"UPSTREAM_CLUSTER_RAW":           str(func(r *proxy.Record) string { return r.ClusterName }),
		"UPSTREAM_LOCAL_ADDRESS":         {append: upstreamLocal},
		"UPSTREAM_PEER_URI_SAN":          str(func(r *proxy.Record) string { return r.UpstreamIdentity }),

		"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":  ip(func(r *proxy.Record) netip.AddrPort { return r.UpstreamLocal }),
		"UPSTREAM_LOCAL_PORT":                  port(func(r *proxy.Record) netip.AddrPort { return r.UpstreamLocal }),
		"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": ip(upstreamAddress),
		"UPSTREAM_REMOTE_PORT":                 port(upstreamAddress),

		"DOWNSTREAM_REMOTE_ADDRESS":                     addr(client),
		"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":        ip(client),
		"DOWNSTREAM_REMOTE_PORT":                        port(client),
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":              addr(source),
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": ip(source),
		"DOWNSTREAM_DIRECT_REMOTE_PORT":                 port(source),
		"DOWNSTREAM_LOCAL_ADDRESS":                      addr(destination),
		"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         ip(destination),
		"DOWNSTREAM_LOCAL_PORT":                         port(destination),
		"DOWNSTREAM_DIRECT_LOCAL_ADDRESS":               addr(destination),
		"DOWNSTREAM_PEER_URI_SAN":                       str(func(r *proxy.Record) string { return connOf(r).Identity }),
		"DOWNSTREAM_LOCAL_URI_SAN":                      str(func(r *proxy.Record) string { return connOf(r).LocalIdentity }),
		"REQUESTED_SERVER_NAME":                         str(func(r *proxy.Record) string { return connOf(r).SNI }),

		"GRPC_STATUS_NUMBER":   num(func(r *proxy.Record) (uint64, bool) { return uint64(max(r.GRPCStatus, 0)), r.GRPC && r.GRPCStatus >= 0 }),
		"FILTER_CHAIN_NAME":    str(chainName),
		"TRACE_ID":             {append: traceID},
		"VIRTUAL_CLUSTER_NAME": str(func(*proxy.Record) string { return "" }),
		"ACCESS_LOG_TYPE":      str(logType),
		"HOSTNAME":             hostname(),
	}
}

func str(get func(*proxy.Record) string) operator {
	return operator{append: func(dst []byte, r *proxy.Record) ([]byte, bool) {
		v := get(r)
		return append(dst, v...), v != ""
	}}
}

func num(get func(*proxy.Record) (uint64, bool)) operator {
	return operator{number: true, append: func(dst []byte, r *proxy.Record) ([]byte, bool) {
		v, ok := get(r)
		if !ok {
			return dst, false
		}
		return strconv.AppendUint(dst, v, 10), true
	}}
}

func millis(get func(*proxy.Record) (time.Duration, bool)) operator {
	return num(func(r *proxy.Record) (uint64, bool) {
		d, ok := get(r)
		return uint64(max(d.Milliseconds(), 0)), ok
	})
}

func addr(get func(*proxy.Record) netip.AddrPort) operator {
	return operator{append: func(dst []byte, r *proxy.Record) ([]byte, bool) {
		a := get(r)
		if !a.IsValid() {
			return dst, false
		}
		return a.AppendTo(dst), true
	}}
}

func ip(get func(*proxy.Record) netip.AddrPort) operator {
	return operator{append: func(dst []byte, r *proxy.Record) ([]byte, bool) {
		a := get(r)
		if !a.IsValid() {
			return dst, false
		}
		return a.Addr().AppendTo(dst), true
	}}
}

func port(get func(*proxy.Record) netip.AddrPort) operator {
	return num(func(r *proxy.Record) (uint64, bool) { a := get(r); return uint64(a.Port()), a.IsValid() })
}

// hostname is the same in every line, so it is asked for once.
func hostname() operator {
	name, err := os.Hostname()
	if err != nil {
		name = ""
	}
	return str(func(*proxy.Record) string { return name })
}

func startTime(params string) (appender, error) {
	format, err := optionalTime(params)
	return func(dst []byte, r *proxy.Record) ([]byte, bool) { return format.appendTo(dst, r.Start), true }, err
}

// emitTime is when the line is made, which is when the request ends.
func emitTime(params string) (appender, error) {
	format, err := optionalTime(params)
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		return format.appendTo(dst, r.Start.Add(r.Duration)), true
	}, err
}

func optionalTime(params string) (timeFormat, error) {
	if params == "" {
		return nil, nil
	}
	return compileTime(params)
}

// names reads "X?Y": a header, and the one to take when it is missing.
func names(params string) (first, second string, err error) {
	first, second, _ = strings.Cut(params, "?")
	if first == "" || strings.Contains(second, "?") {
		return "", "", fmt.Errorf("want HEADER or HEADER?OTHER, got %q", params)
	}
	return strings.ToLower(first), strings.ToLower(second), nil
}

func requestHeader(params string) (appender, error) {
	first, second, err := names(params)
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		value, ok := requestField(r, first)
		if !ok && second != "" {
			value, ok = requestField(r, second)
		}
		return append(dst, value...), ok
	}, err
}

func requestWithoutQuery(params string) (appender, error) {
	first, second, err := names(params)
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		value, ok := requestField(r, first)
		if !ok && second != "" {
			value, ok = requestField(r, second)
		}
		value, _, _ = strings.Cut(value, "?")
		return append(dst, value...), ok
	}, err
}

// requestField is the first value of a header of the request as it was sent on.
func requestField(r *proxy.Record, name string) (string, bool) {
	if r.Request != nil && r.Request.Head != nil {
		return exchange.First(r.Request.Head, name)
	}
	if !strings.HasPrefix(name, ":") {
		if r.Header == nil {
			return "", false
		}
		return r.Header.Get(name)
	}
	value := map[string]string{":method": r.Method, ":path": r.Path, ":authority": r.Authority, ":scheme": r.Scheme}[name]
	return value, value != ""
}

func responseHeader(of func(*proxy.Record) *httpmsg.Header) func(string) (appender, error) {
	return func(params string) (appender, error) {
		first, second, err := names(params)
		return func(dst []byte, r *proxy.Record) ([]byte, bool) {
			header := of(r)
			if header == nil {
				return dst, false
			}
			value, ok := responseField(r, header, first)
			if !ok && second != "" {
				value, ok = responseField(r, header, second)
			}
			return append(dst, value...), ok
		}, err
	}
}

func responseField(r *proxy.Record, header *httpmsg.Header, name string) (string, bool) {
	if name == ":status" {
		return strconv.Itoa(r.Status), r.Status != 0
	}
	return header.Get(name)
}

// grpcStatus shows the status by name in one of Envoy's three styles.
func grpcStatus(params string) (appender, error) {
	var style func(codes.Code) string
	switch params {
	case "", "CAMEL_STRING":
		style = func(c codes.Code) string { return c.String() }
	case "SNAKE_STRING":
		style = snake
	case "NUMBER":
		style = func(c codes.Code) string { return strconv.Itoa(int(c)) }
	default:
		return nil, errors.New("want CAMEL_STRING, SNAKE_STRING or NUMBER")
	}
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		if !r.GRPC || r.GRPCStatus < 0 {
			return dst, false
		}
		return append(dst, style(codes.Code(r.GRPCStatus))...), true
	}, nil
}

func snake(c codes.Code) string {
	var out strings.Builder
	for i, letter := range c.String() {
		if i > 0 && letter >= 'A' && letter <= 'Z' && c != codes.OK {
			out.WriteByte('_')
		}
		out.WriteRune(letter)
	}
	return strings.ToUpper(out.String())
}

// metadata shows that of the route: ROUTE:istio:config.
func metadata(params string) (appender, error) {
	parts := strings.Split(params, ":")
	if len(parts) < 2 || parts[0] != "ROUTE" {
		return nil, errors.New("want ROUTE:NAMESPACE:KEY")
	}
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		if r.Decision == nil || r.Decision.Route == nil || len(parts) < 3 {
			return dst, false
		}
		fields := r.Decision.Route.Metadata.GetFilterMetadata()[parts[1]].GetFields()
		for _, key := range parts[2 : len(parts)-1] {
			fields = fields[key].GetStructValue().GetFields()
		}
		value := fields[parts[len(parts)-1]].GetStringValue()
		return append(dst, value...), value != ""
	}, nil
}

// filterState shows objects that filters and the listener before this one set, and a field of who the two ends are.
func filterState(params string) (appender, error) {
	key, form, _ := strings.Cut(params, ":")
	if name, ok := strings.CutPrefix(form, "FIELD:"); ok {
		return peerField(key, name), nil
	}
	if key == "" || form != "" && form != "PLAIN" && form != "TYPED" {
		return nil, errors.New("want KEY, KEY:PLAIN or KEY:FIELD:NAME")
	}
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		value, ok := connOf(r).State(key)
		if r.Request != nil {
			value, ok = r.Request.State(key)
		}
		if ok && form != "PLAIN" { // what is typed is shown as JSON
			return AppendQuoted(dst, value), true
		}
		return append(dst, value...), ok
	}, nil
}

// dynamicMetadata shows what filters set: envoy.filters.http.jwt_authn:KEY. What is not text or a number is shown as JSON.
func dynamicMetadata(params string) (appender, error) {
	path := strings.Split(params, ":")
	if path[0] == "" {
		return nil, errors.New("want NAMESPACE:KEY")
	}
	return func(dst []byte, r *proxy.Record) ([]byte, bool) {
		if r.Request == nil {
			return dst, false
		}
		fields := r.Request.Metadata(path[0])
		if fields == nil {
			return dst, false
		}
		var value any = fields
		for _, key := range path[1:] {
			object, ok := value.(map[string]any)
			if !ok {
				return dst, false
			}
			if value, ok = object[key]; !ok {
				return dst, false
			}
		}
		if text, ok := value.(string); ok {
			return append(dst, text...), true
		}
		text, err := json.Marshal(value)
		return append(dst, text...), err == nil
	}, nil
}

// nothing is an operator over what no filter of this proxy ever sets: Envoy shows it as absent too.
func nothing(params string) (appender, error) {
	if params == "" {
		return nil, errors.New("parameters are missing")
	}
	return func(dst []byte, _ *proxy.Record) ([]byte, bool) { return dst, false }, nil
}
