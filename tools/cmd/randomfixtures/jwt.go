package main

// tokens are RequestAuthentications, and policies that ask for what they say.
func (g generator) tokens() ([]object, []object) {
	objects := append(subsets(), virtualService("httpbin", object{"hosts": list{"httpbin"}, "http": list{object{"route": list{object{"destination": object{"host": "httpbin", "subset": "v1"}}}}}}))
	target := list{object{"kind": "Service", "group": "", "name": "httpbin"}}
	for i := range 1 + g.IntN(2) {
		objects = append(objects, object{
			"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": object{"name": g.name("t", i), "namespace": "default"},
			"spec": object{"targetRefs": target, "jwtRules": some(g, 2, g.jwtRule)},
		})
	}
	for i := range g.IntN(3) {
		spec := object{"targetRefs": target, "rules": some(g, 3, g.tokenRule)}
		if a := g.pick("", "ALLOW", "DENY"); a != "" {
			spec["action"] = a
		}
		objects = append(objects, object{
			"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": object{"name": g.name("p", i), "namespace": "default"}, "spec": spec,
		})
	}
	return objects, g.requests(40, func(r object) {
		r["to"] = "httpbin:8000"
		if !g.one(5) {
			r["claims"] = g.claims()
		}
	})
}

func (g generator) jwtRule() object {
	rule := object{"issuer": g.pick("one", "two"), "jwks": "{{jwks}}"}
	if g.one(3) {
		rule["audiences"] = g.strings(2, "books", "films")
	}
	if g.one(3) {
		rule["forwardOriginalToken"] = true
	}
	if g.one(3) {
		rule["outputPayloadToHeader"] = "x-payload"
	}
	if g.one(2) {
		rule["outputClaimToHeaders"] = list{object{"header": "x-claim", "claim": g.pick("sub", "group", "level", "nested.key", "groups", "none", "admin")}}
	}
	if g.one(5) {
		rule["fromHeaders"] = list{object{"name": g.pick("x-token", "authorization"), "prefix": "Bearer "}}
	}
	return rule
}

func (g generator) claims() object {
	out := object{"iss": g.pick("one", "one", "two", "three"), "sub": g.pick("jane", "joe")}
	if g.one(2) {
		out["aud"] = []any{"books", "films", list{"books", "films"}, list{"other"}}[g.IntN(4)]
	}
	if g.one(2) {
		out["group"] = g.pick("testers", "makers", "testers makers")
	}
	if g.one(2) {
		out["groups"] = g.strings(2, "testers", "makers", "bakers")
	}
	if g.one(3) {
		out["nested"] = object{"key": []any{"testers", list{"testers", "x"}, 7}[g.IntN(3)]}
	}
	if g.one(4) {
		out["level"] = []any{7, 7.5, "7"}[g.IntN(3)]
	}
	if g.one(4) {
		out["admin"] = []any{true, "true"}[g.IntN(2)]
	}
	if g.one(8) {
		out["exp"] = []any{1, 4102444800}[g.IntN(2)]
	}
	if g.one(8) {
		out["nbf"] = []any{1, 4102444800}[g.IntN(2)]
	}
	if g.one(8) {
		out["azp"] = g.pick("app", "other")
	}
	return out
}

func (g generator) tokenRule() object {
	rule := object{}
	if g.one(2) {
		source := object{g.pick("requestPrincipals", "requestPrincipals", "notRequestPrincipals"): g.strings(2, "one/jane", "one/*", "*/joe", "*", "two/jane", "one/jan")}
		rule["from"] = list{object{"source": source}}
	}
	if g.one(3) {
		rule["to"] = some(g, 2, func() object { return object{"operation": g.operation()} })
	}
	if g.one(2) || len(rule) == 0 {
		rule["when"] = some(g, 2, func() object {
			var key string
			var values list
			switch g.IntN(4) {
			case 0:
				key, values = "request.auth.principal", g.strings(2, "one/jane", "one/*", "*", "*joe")
			case 1:
				key, values = "request.auth.audiences", g.strings(2, "books", "films", "*", "b*")
			case 2:
				key, values = "request.auth.presenter", g.strings(2, "app", "*")
			default:
				key = "request.auth.claims[" + g.pick("group", "groups", "sub", "nested][key", "level", "iss", "admin", "none") + "]"
				values = g.strings(2, "testers", "makers", "t*", "*ers", "jane", "*", "7", "true", "one")
			}
			out := object{"key": key}
			if g.one(4) {
				out["notValues"] = values
			} else {
				out["values"] = values
			}
			return out
		})
	}
	return rule
}
