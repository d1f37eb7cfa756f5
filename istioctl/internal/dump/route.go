package dump

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// RouteFilter says which route configurations are meant.
type RouteFilter struct {
	Name string
	// Verbose shows each route, else only how many virtual hosts there are.
	Verbose bool
}

func (e *Envoy) selectRoutes(f RouteFilter) []resource {
	out := slices.DeleteFunc(slices.Clone(e.routes), func(r resource) bool { return f.Name != "" && r.name != f.Name })
	slices.SortStableFunc(out, func(a, b resource) int { return cmp.Compare(a.name, b.name) })
	return out
}

// Routes are the route configurations whole.
func (e *Envoy) Routes(f RouteFilter) []any { return bodies(e.selectRoutes(f)) }

// RouteTable shows the routes.
func (e *Envoy) RouteTable(f RouteFilter) *Table {
	t := &Table{Columns: []string{"NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"}, Gap: 5}
	if !f.Verbose {
		t.Columns = []string{"NAME", "VIRTUAL HOSTS"}
	}
	for _, r := range e.selectRoutes(f) {
		hosts := list(r.body, "virtualHosts")
		if !f.Verbose {
			t.Rows = append(t.Rows, []string{r.name, strconv.Itoa(len(hosts))})
			continue
		}
		if len(hosts) == 0 {
			t.Rows = append(t.Rows, []string{r.name, "", "", "", "404"})
		}
		for _, host := range hosts {
			domains := domains(list(host, "domains"))
			routes := list(host, "routes")
			if len(routes) == 0 {
				t.Rows = append(t.Rows, []string{r.name, text(host, "name"), domains, "/*", "404"})
			}
			for _, route := range routes {
				t.Rows = append(t.Rows, []string{r.name, text(host, "name"), domains, pathMatch(at(route, "match")), managedBy(route, "")})
			}
		}
	}
	return t
}

// shownDomains is how many domains are shown: a service has up to a dozen, all of one meaning.
const shownDomains = 2

func domains(all []any) string {
	var names []string
	for _, d := range all {
		name, _ := d.(string)
		names = append(names, name)
	}
	if len(names) == 1 {
		return strings.Join(names, ", ")
	}
	// Each is there with and without port.
	short := slices.DeleteFunc(slices.Clone(names), func(d string) bool {
		return slices.ContainsFunc(names, func(o string) bool { return strings.HasPrefix(d, o+":") })
	})
	if len(short) <= shownDomains {
		return strings.Join(short, ", ")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(short[:shownDomains], ", "), len(short)-shownDomains)
}

// pathMatch describes what requests a route takes.
func pathMatch(m tree) string {
	var parts []string
	for _, form := range []struct{ field, format string }{{"prefix", "%s*"}, {"pathSeparatedPrefix", "PathPrefix:%s"}, {"path", "%s"}} {
		if value := text(m, form.field); value != "" {
			parts = append(parts, fmt.Sprintf(form.format, value))
		}
	}
	if re := text(m, "safeRegex", "regex"); re != "" {
		parts = append(parts, "regex "+re)
	}
	if at(m, "connectMatcher") != nil {
		parts = append(parts, "CONNECT")
	}
	for _, of := range []struct{ field, word string }{{"headers", "header"}, {"queryParameters", "query"}} {
		for _, h := range list(m, of.field) {
			parts = append(parts, of.word+" "+text(h, "name"))
		}
	}
	return strings.Join(parts, " ")
}
