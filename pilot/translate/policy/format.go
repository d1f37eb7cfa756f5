package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/expr"
)

// FormatProblems say which operators of a format an engine would refuse: with one of these the listener would have no effect.
func FormatProblems(format string) (out []string) {
	for rest := format; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return out
		}
		if escaped, ok := strings.CutPrefix(after, "%"); ok {
			rest = escaped
			continue
		}
		name, params, remaining, ok := cutOperator(after)
		if !ok {
			return append(out, "a % is not closed: write %% for a percent sign")
		}
		if !slices.Contains(operators(), name) {
			out = append(out, fmt.Sprintf("the operator %%%s%% is not known", name))
		}
		if problem := paramsProblem(name, params); problem != "" {
			out = append(out, fmt.Sprintf("the operator %%%s%%: %s", name, problem))
		}
		rest = remaining
	}
}

// paramsProblem says what is wrong with the parameters of an operator.
func paramsProblem(name, params string) string {
	switch name {
	case "REQ", "RESP", "TRAILER", "REQ_WITHOUT_QUERY", "METADATA", "DYNAMIC_METADATA", "UPSTREAM_METADATA", "FILTER_STATE":
		if params == "" {
			return "parameters are missing"
		}
	case "CEL":
		if _, err := expr.Compile(params); err != nil {
			return err.Error()
		}
	}
	return ""
}

// cutOperator reads "NAME%", "NAME(PARAMETERS)%" or either with ":LENGTH" before the end.
func cutOperator(s string) (name, params, rest string, ok bool) {
	end := strings.IndexFunc(s, func(r rune) bool { return !(r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_') })
	if end <= 0 {
		return "", "", "", false
	}
	name, s = s[:end], s[end:]
	if !strings.HasPrefix(s, "(") {
		rest, ok = cutOperatorEnd(s)
		return name, "", rest, ok
	}
	for at := 1; ; at++ {
		next := strings.IndexByte(s[at:], ')')
		if next < 0 {
			return name, "", "", false
		}
		at += next
		if rest, ok := cutOperatorEnd(s[at+1:]); ok {
			return name, s[1:at], rest, true
		}
	}
}

func cutOperatorEnd(s string) (rest string, ok bool) {
	if limit, found := strings.CutPrefix(s, ":"); found {
		s = strings.TrimLeft(limit, "0123456789")
	}
	return strings.CutPrefix(s, "%")
}

// operators are those that both Envoy and our engine have.
func operators() []string {
	return []string{
		"ACCESS_LOG_TYPE", "BYTES_RECEIVED", "BYTES_SENT", "CEL", "CONNECTION_ID", "CONNECTION_TERMINATION_DETAILS",
		"DOWNSTREAM_DIRECT_LOCAL_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_PORT", "DOWNSTREAM_LOCAL_ADDRESS",
		"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_PEER_URI_SAN",
		"DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT", "DURATION", "DYNAMIC_METADATA",
		"EMIT_TIME", "FILTER_CHAIN_NAME", "FILTER_STATE", "GRPC_STATUS", "GRPC_STATUS_NUMBER", "HOSTNAME", "METADATA", "PROTOCOL", "REQ",
		"REQUESTED_SERVER_NAME", "REQUEST_DURATION", "REQ_WITHOUT_QUERY", "RESP", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS",
		"RESPONSE_DURATION", "RESPONSE_FLAGS", "RESPONSE_TX_DURATION", "ROUTE_NAME", "START_TIME", "TRACE_ID", "TRAILER", "UPSTREAM_CLUSTER",
		"UPSTREAM_CLUSTER_RAW", "UPSTREAM_HOST", "UPSTREAM_HOST_NAME", "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
		"UPSTREAM_LOCAL_PORT", "UPSTREAM_METADATA", "UPSTREAM_PEER_URI_SAN", "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
		"UPSTREAM_REMOTE_PORT", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_TRANSPORT_FAILURE_REASON", "VIRTUAL_CLUSTER_NAME",
	}
}
