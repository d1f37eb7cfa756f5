package policy

import (
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// protoText is a message as text, messages in messages unpacked, with single spaces in no places that vary.
func protoText(m proto.Message) string {
	text := prototext.MarshalOptions{}.Format(m)
	for strings.Contains(text, ":  ") {
		text = strings.ReplaceAll(text, ":  ", ": ")
	}
	text = strings.ReplaceAll(text, ": ", ":")
	return strings.ReplaceAll(text, "{  ", "{")
}
