package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The header x-ext-authz tells the authorizer what to say: allow, error or slow; anything else is denied.
const (
	extAuthzHeader = "x-ext-authz"
	checkPath      = "/envoy.service.auth.v3.Authorization/Check"
	// slowness is longer than any provider of a fixture waits.
	slowness = 3 * time.Second
)

// authorize answers as an external authorizer, by HTTP and by gRPC.
func authorize(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.URL.Path == checkPath {
		authorizeGRPC(w, r, body)
		return
	}
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	said := received(r.Method, r.RequestURI, r.Host, headers, string(body))
	w.Header().Set("x-ext-authz-check-received", said)
	switch r.Header.Get(extAuthzHeader) {
	case "allow":
		w.Header().Set("x-ext-authz-check-result", "allowed")
		w.Header().Set("x-ext-authz-remember", "me")
		w.Header().Set("x-envoy-auth-headers-to-remove", "x-secret, host")
		w.Header().Set("x-route-to", r.Header.Get("x-route-wish"))
		w.WriteHeader(http.StatusOK)
	case "error":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "slow":
		select {
		case <-time.After(slowness):
		case <-r.Context().Done():
		}
	case "moved":
		w.Header().Set("location", "https://login.example.com/")
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.WriteHeader(http.StatusFound)
	default:
		w.Header().Set("x-ext-authz-check-result", "denied")
		w.Header().Set("content-type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"denied": %q}`, r.Header.Get(extAuthzHeader))
	}
}

// received is what the authorizer was told, without what is different each time or what only a proxy is interested in.
func received(method, path, host string, headers map[string]string, body string) string {
	var told []string
	for name, value := range headers {
		if strings.HasPrefix(name, ":") || strings.HasPrefix(name, "x-envoy-") && name != "x-envoy-auth-partial-body" {
			continue
		}
		switch name {
		case "x-request-id", "x-forwarded-for", "content-length", "user-agent", "x-echo-key", "accept-encoding", "te", "content-type", "grpc-timeout", "transfer-encoding":
			continue
		}
		told = append(told, name+"="+value)
	}
	slices.Sort(told)
	return fmt.Sprintf("%s %s %s [%s] %q", method, path, host, strings.Join(told, " "), body)
}

func authorizeGRPC(w http.ResponseWriter, r *http.Request, body []byte) {
	asked := &authv3.CheckRequest{}
	w.Header().Set("content-type", "application/grpc")
	w.Header().Set("trailer", "grpc-status")
	if len(body) < 5 || proto.Unmarshal(body[5:], asked) != nil {
		w.Header().Set("grpc-status", "3")
		return
	}
	said := asked.GetAttributes().GetRequest().GetHttp()
	answer := verdict(said, said.GetHeaders()[extAuthzHeader], asked.GetAttributes().GetDestination().GetAddress().GetSocketAddress().GetPortValue())
	if answer == nil {
		if said.GetHeaders()[extAuthzHeader] == "slow" {
			select {
			case <-time.After(slowness):
			case <-r.Context().Done():
			}
		}
		w.Header().Set("grpc-status", "13")
		return
	}
	out, err := proto.Marshal(answer)
	if err != nil {
		w.Header().Set("grpc-status", "13")
		return
	}
	frame := make([]byte, 5, 5+len(out))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(out)))
	w.Write(append(frame, out...))
	w.Header().Set("grpc-status", "0")
}

// verdict is the answer by gRPC; nil is a failure. Connections to the port of tcp-echo are allowed, others are not.
func verdict(said *authv3.AttributeContext_HttpRequest, wish string, port uint32) *authv3.CheckResponse {
	header := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
	}
	told := received(said.GetMethod(), said.GetPath(), said.GetHost(), said.GetHeaders(), said.GetBody()+string(said.GetRawBody()))
	switch {
	case said == nil && port == 9000:
		return &authv3.CheckResponse{}
	case said == nil:
		return permissionDenied()
	case wish == "allow":
		return &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers:              []*corev3.HeaderValueOption{header("x-ext-authz-check-received", told), header("x-ext-authz-check-result", "allowed")},
			HeadersToRemove:      []string{"x-secret", ":path", "Host"},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{header("x-ext-authz-remember", "me")},
			QueryParametersToSet: []*corev3.QueryParameter{{Key: "asked", Value: "yes"}},
		}}}
	case wish == "bare":
		return permissionDenied()
	case wish == "error" || wish == "slow":
		return nil
	}
	out := permissionDenied()
	out.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized},
		Headers: []*corev3.HeaderValueOption{header("x-ext-authz-check-result", "denied"), header("set-cookie", "a=1"), header("set-cookie", "b=2")},
		Body:    "denied: " + wish,
	}}
	return out
}

// permissionDenied has the status PERMISSION_DENIED.
func permissionDenied() *authv3.CheckResponse {
	out := &authv3.CheckResponse{}
	if err := protojson.Unmarshal([]byte(`{"status": {"code": 7}}`), out); err != nil {
		panic(err)
	}
	return out
}
