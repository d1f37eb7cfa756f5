package extauthz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/match"
)

// Outcome is what the authorizer says.
type Outcome uint8

// The outcomes. Failed is its zero value: nobody has said that the request may pass.
const (
	Failed Outcome = iota
	Allowed
	Denied
	TooLarge // the body is bigger than the authorizer is told
	Invalid  // the answer would make the request, or the response, none
)

// Verdict is an answer of the authorizer. Its strings have memory of their own.
type Verdict struct {
	Outcome Outcome
	// Reason is why there is no answer, for the log.
	Reason string

	status   int // of the answer to a client who is denied; 0 is the default
	body     string
	own      bool     // a failure that has an answer of its own
	changes  []change // of the request, or of the denial
	remove   []string // headers of the request
	response []change // of the response to a request that is allowed
	setQuery []httpmsg.Field
	delQuery []string
	metadata map[string]any
}

// how a header is changed.
type how uint8

const (
	set             how = iota // whatever there is of it is replaced
	appendIfPresent            // only where there is one
	add                        // beside what there is
	addIfAbsent
	overwriteIfPresent
)

type change struct {
	name, value string
	how         how
}

// Failure is the verdict when nobody could be asked.
func Failure(err error) Verdict { return Verdict{Reason: err.Error()} }

// Exceeds is the verdict on a request with a body that is too large.
func Exceeds() Verdict { return Verdict{Outcome: TooLarge} }

// MaxAnswer bounds the body of an answer.
const MaxAnswer = 1 << 20

// Read reads an answer: its head, its body, and, by gRPC, its trailer.
func (f *Filter) Read(head *httpmsg.Head, body []byte, trailer *httpmsg.Header) Verdict {
	if f.GRPC {
		return readGRPC(head, body, trailer)
	}
	switch {
	case head.Status >= 500:
		return Failure(fmt.Errorf("the authorizer answered %d", head.Status))
	case head.Status == 200:
		return f.readAllowed(head)
	}
	v := Verdict{Outcome: Denied, status: head.Status, body: string(body)}
	for name, value := range head.Header.All() {
		if framing(name) || len(f.answer.client) > 0 && !toClient(name) && !one(f.answer.client, name) {
			continue
		}
		v.changes = append(v.changes, change{strings.Clone(name), strings.Clone(value), set})
	}
	return v
}

// toClient are headers of a denial that the client gets in any case.
func toClient(name string) bool { return name == "www-authenticate" || name == "location" }

const removeHeader = "x-envoy-auth-headers-to-remove"

func (f *Filter) readAllowed(head *httpmsg.Head) Verdict {
	v := Verdict{Outcome: Allowed}
	for name, value := range head.Header.All() {
		if name == removeHeader {
			for n := range strings.SplitSeq(value, ",") {
				if n = lower(strings.TrimSpace(n)); removable(n) {
					v.remove = append(v.remove, strings.Clone(n))
				}
			}
			continue
		}
		if framing(name) {
			continue
		}
		for _, to := range []struct {
			matchers []match.String
			list     *[]change
			how      how
		}{{f.answer.upstream, &v.changes, set}, {f.answer.upstreamAppend, &v.changes, appendIfPresent}, {f.answer.clientOnSuccess, &v.response, add}} {
			if one(to.matchers, name) {
				*to.list = append(*to.list, change{strings.Clone(name), strings.Clone(value), to.how})
			}
		}
	}
	return v
}

func removable(name string) bool {
	return name != "" && name[0] != ':' && name != "host" && !framing(name)
}

func readGRPC(head *httpmsg.Head, body []byte, trailer *httpmsg.Header) Verdict {
	if head.Status != 200 {
		return Failure(fmt.Errorf("the authorizer answered %d", head.Status))
	}
	status, ok := head.Header.Get("grpc-status")
	if trailer != nil {
		if s, there := trailer.Get("grpc-status"); there {
			status, ok = s, true
		}
	}
	if !ok || status != "0" {
		return Failure(fmt.Errorf("the authorizer answered gRPC status %q", status))
	}
	r := &authv3.CheckResponse{}
	if err := unframe(body, r); err != nil {
		return Failure(err)
	}
	return verdictOf(r)
}

// unframe reads the only message of a gRPC response.
func unframe(body []byte, into proto.Message) error {
	if len(body) < 5 {
		return errors.New("the authorizer answered nothing")
	}
	if body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return errors.New("the authorizer's answer is compressed, or of another length than it says")
	}
	if err := proto.Unmarshal(body[5:], into); err != nil {
		return fmt.Errorf("the authorizer's answer: %w", err)
	}
	return nil
}

func verdictOf(r *authv3.CheckResponse) Verdict {
	v := Verdict{Outcome: Denied, metadata: r.GetDynamicMetadata().AsMap()}
	if r.GetDynamicMetadata() == nil {
		v.metadata = nil
	}
	err := error(nil)
	switch denied, failed := r.GetDeniedResponse(), r.GetErrorResponse(); {
	case r.GetStatus().GetCode() == 0:
		v.Outcome = Allowed
		err = v.allow(r.GetOkResponse())
	case denied != nil:
		v.status, v.body = int(denied.GetStatus().GetCode()), denied.GetBody()
		err = v.list(&v.changes, denied.GetHeaders(), false)
	case failed != nil:
		v.Outcome, v.Reason, v.own = Failed, "the authorizer says that it has failed", true
		v.status, v.body = int(failed.GetStatus().GetCode()), failed.GetBody()
		err = v.list(&v.changes, failed.GetHeaders(), false)
	}
	if v.status != 0 && (v.status < 200 || v.status > 599) {
		err = fmt.Errorf("%d is no status", v.status)
	}
	if err != nil {
		return Verdict{Outcome: Invalid, Reason: "the authorizer's answer: " + err.Error()}
	}
	return v
}

func (v *Verdict) allow(ok *authv3.OkHttpResponse) error {
	if md := ok.GetDynamicMetadata(); md != nil { //nolint:staticcheck // deprecated, and still sent
		v.metadata = md.AsMap()
	}
	for _, name := range ok.GetHeadersToRemove() {
		if name = lower(name); removable(name) {
			v.remove = append(v.remove, name)
		}
	}
	for _, q := range ok.GetQueryParametersToSet() {
		v.setQuery = append(v.setQuery, httpmsg.Field{Key: q.GetKey(), Value: q.GetValue()})
	}
	v.delQuery = ok.GetQueryParametersToRemove()
	if err := v.list(&v.changes, ok.GetHeaders(), false); err != nil {
		return err
	}
	return v.list(&v.response, ok.GetResponseHeadersToAdd(), true)
}

// list reads changes of headers. Where nothing is said, headers of a response are added, others replaced.
func (v *Verdict) list(to *[]change, options []*corev3.HeaderValueOption, response bool) error {
	for _, o := range options {
		c := change{name: lower(o.GetHeader().GetKey()), value: o.GetHeader().GetValue()}
		if raw := o.GetHeader().GetRawValue(); len(raw) > 0 {
			c.value = string(raw)
		}
		if !validName(c.name) || !validValue(c.value) {
			return fmt.Errorf("%q is no header", c.name)
		}
		if framing(c.name) {
			continue
		}
		switch o.GetAppendAction() {
		case corev3.HeaderValueOption_ADD_IF_ABSENT:
			c.how = addIfAbsent
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			c.how = overwriteIfPresent
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			c.how = set
		case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			if response {
				c.how = add
			}
			if a := o.GetAppend(); a != nil { //nolint:staticcheck // deprecated, and what authorizers send
				switch {
				case !a.GetValue():
					c.how = set
				case response:
					c.how = add
				default:
					c.how = appendIfPresent
				}
			}
		}
		*to = append(*to, c)
	}
	return nil
}

// validName takes names of headers and of pseudo-headers.
func validName(name string) bool {
	rest := strings.TrimPrefix(name, ":")
	for _, b := range []byte(rest) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", b) < 0 {
			return false
		}
	}
	return rest != ""
}

func validValue(v string) bool {
	for _, b := range []byte(v) {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return v == strings.Trim(v, " \t")
}
