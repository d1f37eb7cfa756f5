package route

import (
	"slices"
	"strings"
)

// Header values that Envoy adds are formats: %NAME% stands for a property of the request. Values of the Gateway API are literal;
// those of a VirtualService may use the operators below, and any other % in them is literal too, so that no value makes Envoy
// refuse a whole configuration.

// Literal makes a value that is added as it stands.
func Literal(value string) string { return strings.ReplaceAll(value, "%", "%%") }

// Format keeps the operators that proxies know, and makes the rest literal.
func Format(value string) string {
	var out strings.Builder
	for value != "" {
		before, rest, found := strings.Cut(value, "%")
		out.WriteString(before)
		if !found {
			break
		}
		if strings.HasPrefix(rest, "%") {
			out.WriteString("%%")
			value = rest[1:]
			continue
		}
		end := strings.IndexByte(rest, '%')
		if end >= 0 && operator(rest[:end]) {
			out.WriteString("%" + rest[:end] + "%")
			value = rest[end+1:]
			continue
		}
		out.WriteString("%%")
		value = rest
	}
	return out.String()
}

// operator reports whether the text between two % is one: a known name, or a name with the header it reads.
func operator(text string) bool {
	name, argument, found := strings.Cut(text, "(")
	if !found {
		return slices.Contains(plainOperators(), name)
	}
	header, ok := strings.CutSuffix(argument, ")")
	if !ok || name != "REQ" && name != "RESP" {
		return false
	}
	return CheckName(strings.TrimPrefix(header, ":")) == nil
}

func plainOperators() []string {
	return []string{
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
		"DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT",
		"DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_PEER_URI_SAN",
		"DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT",
		"DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_VERSION",
		"HOSTNAME", "PROTOCOL", "REQUESTED_SERVER_NAME", "RESPONSE_CODE", "RESPONSE_FLAGS", "ROUTE_NAME", "START_TIME",
		"UPSTREAM_CLUSTER", "UPSTREAM_HOST",
	}
}
