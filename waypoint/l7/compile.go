package l7

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/isthmus-mesh/isthmus/waypoint/l7/strict"
)

// duration is def when d is not set.
func duration(d *durationpb.Duration, def time.Duration) time.Duration {
	if d == nil {
		return def
	}
	return d.AsDuration()
}

func uint32Or(v *wrapperspb.UInt32Value, def uint32) uint32 {
	if v == nil {
		return def
	}
	return v.GetValue()
}

// orTrue is for fields that are true when they are not set.
func orTrue(v *wrapperspb.BoolValue) bool { return v == nil || v.GetValue() }

// unpack decodes an Any that must be a T.
func unpack[T proto.Message](a *anypb.Any) (T, error) {
	var zero T
	m, err := strict.Unpack(a)
	if err != nil {
		return zero, err
	}
	t, ok := m.(T)
	if !ok {
		return zero, strict.Errorf("", "type %s is not supported here", m.ProtoReflect().Descriptor().FullName())
	}
	return t, nil
}

func prefixOf(r *corev3.CidrRange) (netip.Prefix, error) {
	return parsePrefix(r.GetAddressPrefix(), r.GetPrefixLen().GetValue())
}

func parsePrefix(address string, length uint32) (netip.Prefix, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, strict.Errorf("address_prefix", "%v", err)
	}
	p, err := a.Prefix(int(length))
	if err != nil {
		return netip.Prefix{}, strict.Errorf("prefix_len", "%v", err)
	}
	return p, nil
}

// fraction is a chance of numerator in denominator.
type fraction struct{ numerator, denominator uint64 }

var always = fraction{1, 1} //nolint:gochecknoglobals // a constant

func fractionOf(p *typev3.FractionalPercent) fraction {
	f := fraction{numerator: uint64(p.GetNumerator()), denominator: 100}
	switch p.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		f.denominator = 10_000
	case typev3.FractionalPercent_MILLION:
		f.denominator = 1_000_000
	}
	return f
}

// hit draws with a random number.
func (f fraction) hit(random uint64) bool { return random%f.denominator < f.numerator }
