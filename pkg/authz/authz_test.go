package authz_test

import (
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/isthmus-mesh/isthmus/pkg/api/security"
	"github.com/isthmus-mesh/isthmus/pkg/authz"
	"github.com/isthmus-mesh/isthmus/pkg/spiffe"
)

var web = spiffe.ID{TrustDomain: "cluster.local", Namespace: "web", ServiceAccount: "front"}

func compile(t testing.TB, text string) *authz.Policy {
	t.Helper()
	var p security.Authorization
	if err := prototext.Unmarshal([]byte(`name:"p" namespace:"shop" `+text), &p); err != nil {
		t.Fatal(err)
	}
	policy, err := authz.Compile(&p)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

func conn(id spiffe.ID) authz.Conn {
	return authz.Conn{Source: netip.MustParseAddrPort("[::ffff:10.0.0.1]:4711"), Destination: netip.MustParseAddrPort("10.0.0.2:8080"), Identity: id}
}

func TestMatching(t *testing.T) {
	for name, test := range map[string]struct {
		rules     string
		id        spiffe.ID
		wantMatch bool
	}{
		"no rules never match":                     {"", web, false},
		"a rule without clauses always holds":      {"rules{}", web, true},
		"a clause without matches holds":           {"rules{clauses{}}", web, true},
		"an empty match never holds":               {"rules{clauses{matches{}}}", web, false},
		"exact principal":                          {`rules{clauses{matches{principals{exact:"cluster.local/ns/web/sa/front"}}}}`, web, true},
		"principal is compared without scheme":     {`rules{clauses{matches{principals{exact:"spiffe://cluster.local/ns/web/sa/front"}}}}`, web, false},
		"prefix":                                   {`rules{clauses{matches{principals{prefix:"cluster.local/ns/web/"}}}}`, web, true},
		"suffix":                                   {`rules{clauses{matches{principals{suffix:"/sa/other"}}}}`, web, false},
		"presence":                                 {`rules{clauses{matches{principals{presence{}}}}}`, web, true},
		"presence needs an identity":               {`rules{clauses{matches{principals{presence{}}}}}`, spiffe.ID{}, false},
		"empty prefix needs an identity":           {`rules{clauses{matches{namespaces{prefix:""}}}}`, spiffe.ID{}, false},
		"strict holds without identity":            {`rules{clauses{matches{not_principals{presence{}}}}}`, spiffe.ID{}, true},
		"strict does not hold with identity":       {`rules{clauses{matches{not_principals{presence{}}}}}`, web, false},
		"namespace":                                {`rules{clauses{matches{namespaces{exact:"web"}}}}`, web, true},
		"service account":                          {`rules{clauses{matches{service_accounts{namespace:"web" serviceAccount:"front"}}}}`, web, true},
		"service account of another namespace":     {`rules{clauses{matches{service_accounts{namespace:"x" serviceAccount:"front"}}}}`, web, false},
		"port":                                     {`rules{clauses{matches{destination_ports:[80,8080]}}}`, web, true},
		"not port":                                 {`rules{clauses{matches{not_destination_ports:8080}}}`, web, false},
		"mapped source in range":                   {`rules{clauses{matches{source_ips{address:"\012\000\000\000" length:8}}}}`, web, true},
		"destination out of range":                 {`rules{clauses{matches{destination_ips{address:"\013\000\000\000" length:8}}}}`, web, false},
		"fields of a match are ANDed":              {`rules{clauses{matches{namespaces{exact:"web"} destination_ports:22}}}`, web, false},
		"matches of a clause are ORed":             {`rules{clauses{matches{destination_ports:22} matches{namespaces{exact:"web"}}}}`, web, true},
		"clauses of a rule are ANDed":              {`rules{clauses{matches{destination_ports:22}} clauses{matches{namespaces{exact:"web"}}}}`, web, false},
		"rules are ORed":                           {`rules{clauses{matches{destination_ports:22}}} rules{clauses{matches{namespaces{exact:"web"}}}}`, web, true},
		"strict except on a port: other port":      {`rules{clauses{matches{not_principals{presence{}}}} clauses{matches{not_destination_ports:9090}}}`, spiffe.ID{}, true},
		"strict except on a port: the port itself": {`rules{clauses{matches{not_principals{presence{}}}} clauses{matches{not_destination_ports:8080}}}`, spiffe.ID{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			denied := !authz.Select(nil, nil, []*authz.Policy{compile(t, "action:DENY "+test.rules)}).Check(conn(test.id)).Allowed
			allowed := authz.Select([]*authz.Policy{compile(t, test.rules)}, nil, nil).Check(conn(test.id)).Allowed
			if denied != test.wantMatch || allowed != test.wantMatch {
				t.Errorf("as DENY it matched %v, as ALLOW %v, want %v", denied, allowed, test.wantMatch)
			}
		})
	}
}

func TestOrderOfActionsAndReasons(t *testing.T) {
	deny := compile(t, `action:DENY rules{clauses{matches{destination_ports:22}}} rules{clauses{matches{destination_ports:8080}}}`)
	allow := compile(t, "rules{}")
	none := compile(t, "")
	if v := authz.Select(nil, nil, nil).Check(conn(web)); !v.Allowed {
		t.Error("without policies everything is allowed")
	}
	v := authz.Select([]*authz.Policy{allow}, []*authz.Policy{deny}, nil).Check(conn(web))
	if v.Allowed || v.Policy != "shop/p" || v.Rule != 1 || v.Reason != "explicitly denied by shop/p rule[1]" {
		t.Errorf("%+v", v)
	}
	if v := authz.Select(nil, []*authz.Policy{none}, nil).Check(conn(web)); v.Allowed || !strings.Contains(v.Reason, "shop/p") {
		t.Errorf("an ALLOW policy without rules denies all: %+v", v)
	}
	dry := compile(t, `dry_run:true action:DENY rules{}`)
	if v := authz.Select(nil, nil, []*authz.Policy{dry}).Check(conn(web)); !v.Allowed || len(v.DryRun) != 1 || v.DryRun[0].Allowed {
		t.Errorf("%+v", v)
	}
}

func TestCompileNamesTheField(t *testing.T) {
	for text, want := range map[string]string{
		`rules{clauses{matches{source_ips{address:"\001"}}}}`:                           "rules[0].clauses[0].matches[0].source_ips",
		`rules{} rules{clauses{matches{not_source_ips{address:"\1\2\3\4" length:40}}}}`: "rules[1].clauses[0].matches[0].not_source_ips",
		`rules{clauses{matches{principals{}}}}`:                                         "principals",
	} {
		var p security.Authorization
		if err := prototext.Unmarshal([]byte(`name:"p" `+text), &p); err != nil {
			t.Fatal(err)
		}
		if _, err := authz.Compile(&p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	set := authz.Select(nil, nil, []*authz.Policy{
		compile(t, `action:DENY rules{clauses{matches{namespaces{prefix:"x"} not_source_ips{address:"\x0a\x00\x00\x00" length:8}}}}`),
		compile(t, `rules{clauses{matches{principals{suffix:"/sa/nobody"} principals{exact:"cluster.local/ns/web/sa/front"} destination_ports:8080}}}`),
	})
	c := conn(web)
	if n := testing.AllocsPerRun(100, func() {
		if !set.Check(c).Allowed {
			t.Fatal("refused")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
