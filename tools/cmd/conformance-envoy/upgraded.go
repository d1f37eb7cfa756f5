package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// exchangeUpgradedH2 sends a line over a WebSocket of HTTP/2 (RFC 8441), and reads one.
func exchangeUpgradedH2(c io.ReadWriter, r request, headers map[string]string) (*result, error) {
	framer, settings, err := beginH2(c)
	if err != nil {
		return nil, err
	}
	if v, ok := settings.Value(http2.SettingEnableConnectProtocol); !ok || v != 1 {
		return nil, fmt.Errorf("the server does not offer RFC 8441")
	}
	fields := [][2]string{
		{":method", "CONNECT"},
		{":protocol", "websocket"},
		{":scheme", "http"},
		{":authority", r.host()},
		{":path", orDefault(r.Path, "/")},
		{"sec-websocket-version", "13"},
	}
	for _, k := range sortedKeys(headers) {
		fields = append(fields, [2]string{strings.ToLower(k), headers[k]})
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return nil, err
		}
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		return nil, err
	}
	response := &http.Response{Header: http.Header{}}
	var body bytes.Buffer
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		ended := false
		switch f := frame.(type) {
		case *http2.RSTStreamFrame:
			return nil, fmt.Errorf("stream reset: %s", f.ErrCode)
		case *http2.GoAwayFrame:
			return nil, fmt.Errorf("connection ended: %s", f.ErrCode)
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == ":status" {
					fmt.Sscan(h.Value, &response.StatusCode)
				} else {
					response.Header.Add(h.Name, h.Value)
				}
			}
			if ended = f.StreamEnded(); !ended && response.StatusCode == http.StatusOK {
				if err := framer.WriteData(1, false, []byte(r.WebSocket+"\n")); err != nil {
					return nil, err
				}
			}
		case *http2.DataFrame:
			body.Write(f.Data())
			ended = f.StreamEnded()
		}
		switch {
		case response.StatusCode == http.StatusOK && bytes.HasSuffix(body.Bytes(), []byte("\n")):
			name, rest, _ := strings.Cut(strings.TrimSuffix(body.String(), "\n"), " ")
			return &result{status: response.StatusCode, header: response.Header, body: rest, seen: &seen{Workload: name}}, nil
		case ended:
			response.Body = io.NopCloser(&body)
			return readResult(response)
		}
	}
}

// beginH2 does what comes first on a connection of HTTP/2, and returns the settings of the server.
func beginH2(c io.ReadWriter) (*http2.Framer, *http2.SettingsFrame, error) {
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, nil, err
	}
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		return nil, nil, err
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		return nil, nil, err
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		return nil, nil, fmt.Errorf("the first frame is %s", frame.Header().Type)
	}
	return framer, settings, framer.WriteSettingsAck()
}

// final reads responses until one that is no interim one, whose statuses it keeps in a header.
func final(reader *bufio.Reader, method string) (*http.Response, error) {
	var interim []string
	for {
		response, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			if len(interim) > 0 {
				response.Header.Set("X-Interim", strings.Join(interim, " "))
			}
			return response, nil
		}
		interim = append(interim, fmt.Sprint(response.StatusCode))
	}
}

// upgradeH2 answers lines on a WebSocket of HTTP/2.
func upgradeH2(w workload, rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("X-Echo-Workload", w.name)
	rw.WriteHeader(http.StatusOK)
	control := http.NewResponseController(rw)
	if control.Flush() != nil {
		return
	}
	reader := bufio.NewReader(r.Body)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(rw, "%s %s", w.name, line); err != nil || control.Flush() != nil {
			return
		}
	}
}
