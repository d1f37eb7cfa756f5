package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// exchangeFields sends a request over HTTP/2 of exactly the fields given, allowed or not.
func exchangeFields(c io.ReadWriter, r request, key string) (*result, error) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range r.Fields {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: strings.ReplaceAll(f[1], "{key}", key)}); err != nil {
			return nil, err
		}
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		return nil, err
	}
	err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: r.Body == ""})
	if err != nil {
		return nil, err
	}
	if r.Body != "" {
		if err := framer.WriteData(1, true, []byte(r.Body)); err != nil {
			return nil, err
		}
	}
	return readStream(framer)
}

// readStream reads the response on stream 1.
func readStream(framer *http2.Framer) (*result, error) {
	response := &http.Response{Header: http.Header{}}
	var body bytes.Buffer
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := framer.WriteSettingsAck(); err != nil {
					return nil, err
				}
			}
		case *http2.RSTStreamFrame:
			return nil, fmt.Errorf("stream reset: %s", f.ErrCode)
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return nil, fmt.Errorf("connection ended: %s", f.ErrCode)
			}
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == ":status" {
					fmt.Sscan(h.Value, &response.StatusCode)
					continue
				}
				response.Header.Add(h.Name, h.Value)
			}
		case *http2.DataFrame:
			body.Write(f.Data())
		}
		h := frame.Header()
		ended := h.Type == http2.FrameData && h.Flags.Has(http2.FlagDataEndStream) || h.Type == http2.FrameHeaders && h.Flags.Has(http2.FlagHeadersEndStream)
		if h.StreamID == 1 && ended {
			response.Body = io.NopCloser(&body)
			return readResult(response)
		}
	}
}
