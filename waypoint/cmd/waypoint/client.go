package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// request prints what the admin port of the pod's proxy answers.
func request(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("request", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	port := f.Int("debug-port", 15000, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 2 {
		return errors.New("want a method and a path: request [--debug-port 15000] GET /config_dump")
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(*port))
	r, err := http.NewRequestWithContext(ctx, strings.ToUpper(f.Arg(0)), "http://"+address+"/"+strings.TrimPrefix(f.Arg(1), "/"), http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("admin port: %w", err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(out, response.Body); err != nil {
		return fmt.Errorf("admin port: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("admin port: %s", response.Status)
	}
	return nil
}

// wait returns once the proxy says that it is ready. The flags are those of pilot-agent, with both spellings of each.
func wait(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("wait", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	url := f.String("url", "http://localhost:15021/healthz/ready", "")
	timeout, period, each := f.Int("timeoutSeconds", 60, ""), f.Int("periodMillis", 500, ""), f.Int("requestTimeoutMillis", 500, "")
	if err := f.Parse(args); err != nil {
		return fmt.Errorf("%w: want --url, --timeoutSeconds, --periodMillis, --requestTimeoutMillis", err)
	}
	if f.NArg() > 0 || *timeout <= 0 || *period <= 0 || *each <= 0 {
		return errors.New("wait: want positive numbers and no arguments")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(*timeout)*time.Second)
	defer cancel()
	client := &http.Client{Timeout: time.Duration(*each) * time.Millisecond}
	defer client.CloseIdleConnections()
	again := time.NewTicker(time.Duration(*period) * time.Millisecond)
	defer again.Stop()
	var problem error
	for {
		now := ready(ctx, client, *url)
		if now == nil {
			return nil
		}
		if problem == nil || ctx.Err() == nil { // not that the time is over, but why it was not enough
			problem = now
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the proxy was not ready within %d seconds: %w", *timeout, problem)
		}
	}
}

func ready(ctx context.Context, client *http.Client, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
