package strict

// The types that may come inside an Any must be known to be decoded; most are by the packages that compile them.
import (
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3" // decoded only
)
