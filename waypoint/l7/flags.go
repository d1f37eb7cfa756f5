package l7

import "strings"

// Flags are Envoy's response flags, as in %RESPONSE_FLAGS%.
type Flags uint32

// The flags that this proxy sets.
const (
	FlagNoHealthyUpstream             Flags = 1 << iota // UH
	FlagUpstreamConnectionFailure                       // UF
	FlagUpstreamOverflow                                // UO
	FlagNoRouteFound                                    // NR
	FlagUpstreamRequestTimeout                          // UT
	FlagUpstreamRemoteReset                             // UR
	FlagUpstreamConnectionTermination                   // UC
	FlagUpstreamRetryLimit                              // URX
	FlagLocalReset                                      // LR
	FlagDelayInjected                                   // DI
	FlagFaultInjected                                   // FI
	FlagRateLimited                                     // RL
	FlagUnauthorized                                    // UAEX
	FlagDownstreamTermination                           // DC
	FlagStreamIdleTimeout                               // SI
	FlagInvalidHeader                                   // IH
	FlagDownstreamProtocolError                         // DPE
	FlagUpstreamProtocolError                           // UPE
	FlagUpstreamMaxDuration                             // UMSDR
	FlagNoCluster                                       // NC
	FlagDurationTimeout                                 // DT
	FlagOverload                                        // OM
	FlagDownstreamRemoteReset                           // DR
)

// flagNames are in the order in which Envoy prints them: that in which they are set.
//
//nolint:gochecknoglobals // a constant
var flagNames = [...]struct {
	flag Flags
	name string
}{
	{FlagDelayInjected, "DI"},
	{FlagFaultInjected, "FI"},
	{FlagUpstreamRetryLimit, "URX"},
	{FlagNoHealthyUpstream, "UH"},
	{FlagUpstreamRequestTimeout, "UT"},
	{FlagLocalReset, "LR"},
	{FlagUpstreamRemoteReset, "UR"},
	{FlagUpstreamConnectionFailure, "UF"},
	{FlagUpstreamConnectionTermination, "UC"},
	{FlagUpstreamOverflow, "UO"},
	{FlagNoRouteFound, "NR"},
	{FlagRateLimited, "RL"},
	{FlagUnauthorized, "UAEX"},
	{FlagDownstreamTermination, "DC"},
	{FlagStreamIdleTimeout, "SI"},
	{FlagInvalidHeader, "IH"},
	{FlagDownstreamProtocolError, "DPE"},
	{FlagUpstreamMaxDuration, "UMSDR"},
	{FlagNoCluster, "NC"},
	{FlagDurationTimeout, "DT"},
	{FlagUpstreamProtocolError, "UPE"},
	{FlagOverload, "OM"},
	{FlagDownstreamRemoteReset, "DR"},
}

// String is as in an access log: "UF,URX", or "-".
func (f Flags) String() string {
	if f == 0 {
		return "-"
	}
	var b strings.Builder
	for _, n := range flagNames {
		if f&n.flag == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(n.name)
	}
	return b.String()
}
