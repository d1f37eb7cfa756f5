package scenario

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// inMesh is where calls come from unless it matters.
const inMesh = "default/deploy/curl"

// sample applies a sample's manifest to namespace default.
func (b *Bed) sample(ctx context.Context, file string) error {
	data, err := os.ReadFile(filepath.Join(b.Samples, file))
	if err != nil {
		return err
	}
	if _, err := b.Sandbox.Apply(ctx, file, data); err != nil {
		return fmt.Errorf("apply %s: %w", file, err)
	}
	return nil
}

// takeBack deletes what a sample's manifest has made.
func (b *Bed) takeBack(ctx context.Context, files ...string) {
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(b.Samples, file))
		if err == nil {
			_, err = b.Sandbox.Delete(ctx, file, data)
		}
		if err != nil {
			b.Report.Check(ctx, func(context.Context) (string, error) { return "", fmt.Errorf("clean up %s: %w", file, err) })
		}
	}
}

// reply is an HTTP answer.
type reply struct {
	status     int
	head, body string
	took       time.Duration
	failure    string // of the connection
}

func (r reply) String() string {
	body := strings.Join(strings.Fields(r.body), " ")
	if len(body) > 120 {
		body = body[:120] + "…"
	}
	if r.failure != "" {
		return r.failure
	}
	return fmt.Sprintf("%d after %.1f s, %q", r.status, r.took.Seconds(), body)
}

// tailMark is where a body ends and what curl says of the transfer begins.
const tailMark = "----tail----"

// fetch makes one request with curl, which gets args.
func (b *Bed) fetch(ctx context.Context, where string, args ...string) (reply, error) {
	argv := append([]string{"curl", "-s", "--max-time", "15", "-D", "/dev/stderr", "-w", tailMark + "%{http_code} %{time_total} %{errormsg}"}, args...)
	o, err := b.exec(ctx, where, argv...)
	if err != nil {
		return reply{}, err
	}
	body, tail, _ := strings.Cut(o.stdout, tailMark)
	fields := strings.SplitN(tail, " ", 3)
	if len(fields) < 2 {
		return reply{}, fmt.Errorf("curl: %s", o)
	}
	r := reply{head: strings.ToLower(o.stderr), body: body}
	if r.status, err = strconv.Atoi(fields[0]); err != nil {
		return reply{}, fmt.Errorf("curl: %s", o)
	}
	seconds, err := strconv.ParseFloat(fields[1], 64)
	if err != nil {
		return reply{}, fmt.Errorf("curl: %s", o)
	}
	r.took = time.Duration(seconds * float64(time.Second))
	if o.code != 0 && len(fields) == 3 {
		r.failure = fmt.Sprintf("curl's exit code %d: %s", o.code, fields[2])
	}
	return r, nil
}

// until fetches until the answer is as wanted.
func (b *Bed) until(ctx context.Context, what string, ok func(reply) bool, where string, args ...string) (reply, error) {
	var last reply
	var err error
	waited := b.eventually(ctx, func() bool {
		last, err = b.fetch(ctx, where, args...)
		return err == nil && ok(last)
	})
	if err != nil {
		return last, err
	}
	if waited != nil {
		return last, expected(what, "%s", last)
	}
	return last, nil
}

func status(code int) func(reply) bool { return func(r reply) bool { return r.status == code } }

func isPage(r reply) bool { return r.status == 200 && strings.Contains(r.body, pageTitle) }

// versions calls reviews n times, and counts which version answers. What is no answer is counted by its status.
func (b *Bed) versions(ctx context.Context, n int, args ...string) (map[string]int, error) {
	argv := append([]string{"curl", "-s", "--max-time", "30", "-w", "\n" + tailMark + "%{http_code}\n"}, args...)
	o, err := b.exec(ctx, inMesh, append(argv, fmt.Sprintf("http://reviews:9080/reviews/0?n=[1-%d]", n))...)
	if err != nil {
		return nil, err
	}
	seen := map[string]int{}
	podname := regexp.MustCompile(`"podname": ?"reviews-(v\d)`)
	body := ""
	for line := range strings.SplitSeq(o.stdout, "\n") {
		code, ended := strings.CutPrefix(line, tailMark)
		if !ended {
			body += line
			continue
		}
		if v := podname.FindStringSubmatch(body); v != nil && code == "200" {
			seen[v[1]]++
		} else {
			seen["status "+code]++
		}
		body = ""
	}
	return seen, nil
}

// only waits until the given versions of reviews and no others answer.
func (b *Bed) only(ctx context.Context, versions []string, args ...string) error {
	var seen map[string]int
	var err error
	waited := b.eventually(ctx, func() bool {
		if seen, err = b.versions(ctx, 30, args...); err != nil {
			return false
		}
		known := 0
		for _, v := range versions {
			known += seen[v]
		}
		return known == 30
	})
	if err != nil {
		return err
	}
	if waited != nil {
		return expected("reviews "+strings.Join(versions, " and ")+" to answer, and no others", "%v", seen)
	}
	return nil
}

// logged counts the lines of a Deployment's log since a moment that match all patterns.
func (b *Bed) logged(ctx context.Context, deployment string, since time.Time, patterns ...string) (int, error) {
	log, err := b.Sandbox.Logs(ctx, "default", "deploy/"+deployment, "", false, since)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	text, err := io.ReadAll(log)
	if err != nil {
		return 0, err
	}
	n := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		if match(line, patterns...) != "" {
			n++
		}
	}
	return n, nil
}
