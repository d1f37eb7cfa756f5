package accesslog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"
)

// filter is whether a record is logged.
type filter func(r *proxy.Record) bool

// compileFilter refuses what it cannot honour.
func compileFilter(f *accesslogv3.AccessLogFilter) (filter, error) {
	switch kind := f.GetFilterSpecifier().(type) {
	case nil:
		return nil, nil
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		return flagFilter(kind.ResponseFlagFilter.GetFlags()), nil
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		within, err := comparison(kind.StatusCodeFilter.GetComparison())
		return func(r *proxy.Record) bool { return within(uint64(r.Status)) }, err
	case *accesslogv3.AccessLogFilter_DurationFilter:
		within, err := comparison(kind.DurationFilter.GetComparison())
		return func(r *proxy.Record) bool { return within(uint64(max(r.Duration/time.Millisecond, 0))) }, err
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		return func(*proxy.Record) bool { return true }, nil
	case *accesslogv3.AccessLogFilter_ExtensionFilter:
		return expressionFilter(kind.ExtensionFilter)
	case *accesslogv3.AccessLogFilter_AndFilter:
		return several(kind.AndFilter.GetFilters(), false)
	case *accesslogv3.AccessLogFilter_OrFilter:
		return several(kind.OrFilter.GetFilters(), true)
	}
	return nil, errors.New("filter: this kind of filter is not supported")
}

// flagFilter matches any of the flags, or, without a list, any flag at all.
func flagFilter(flags []string) filter {
	return func(r *proxy.Record) bool {
		if r.Flags == 0 {
			return false
		}
		if len(flags) == 0 {
			return true
		}
		for flag := range strings.SplitSeq(r.Flags.String(), ",") {
			if slices.Contains(flags, flag) {
				return true
			}
		}
		return false
	}
}

func comparison(c *accesslogv3.ComparisonFilter) (func(uint64) bool, error) {
	want := uint64(c.GetValue().GetDefaultValue())
	switch c.GetOp() {
	case accesslogv3.ComparisonFilter_EQ:
		return func(v uint64) bool { return v == want }, nil
	case accesslogv3.ComparisonFilter_GE:
		return func(v uint64) bool { return v >= want }, nil
	case accesslogv3.ComparisonFilter_LE:
		return func(v uint64) bool { return v <= want }, nil
	case accesslogv3.ComparisonFilter_NE:
		return func(v uint64) bool { return v != want }, nil
	}
	return nil, fmt.Errorf("filter: the comparison %s is not supported", c.GetOp())
}

// several is the disjunction of filters, or else their conjunction.
func several(protos []*accesslogv3.AccessLogFilter, disjunction bool) (filter, error) {
	filters := make([]filter, 0, len(protos))
	for _, p := range protos {
		f, err := compileFilter(p)
		if err != nil {
			return nil, err
		}
		filters = append(filters, f)
	}
	return func(r *proxy.Record) bool {
		for _, f := range filters {
			if f == nil || f(r) == disjunction {
				return disjunction
			}
		}
		return !disjunction
	}, nil
}
