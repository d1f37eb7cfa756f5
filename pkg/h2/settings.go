package h2

import "encoding/binary"

// SettingID names a SETTINGS parameter.
type SettingID uint16

// The parameters of RFC 9113 section 6.5.2 and RFC 8441.
const (
	SettingHeaderTableSize      SettingID = 0x1
	SettingEnablePush           SettingID = 0x2
	SettingMaxConcurrentStreams SettingID = 0x3
	SettingInitialWindowSize    SettingID = 0x4
	SettingMaxFrameSize         SettingID = 0x5
	SettingMaxHeaderListSize    SettingID = 0x6
	SettingEnableConnect        SettingID = 0x8
)

// DefaultWindow is every window before SETTINGS and WINDOW_UPDATE change it; MaxWindow the largest legal one.
const (
	DefaultWindow = 65535
	MaxWindow     = 1<<31 - 1
)

// Setting is one parameter of a SETTINGS frame.
type Setting struct {
	ID    SettingID
	Value uint32
}

// AppendSettings appends a SETTINGS frame.
func AppendSettings(dst []byte, settings ...Setting) []byte {
	dst = FrameHeader{Length: uint32(6 * len(settings)), Type: FrameSettings}.Append(dst)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Value)
	}
	return dst
}

// AppendSettingsAck appends the acknowledgement of a SETTINGS frame.
func AppendSettingsAck(dst []byte) []byte {
	return FrameHeader{Type: FrameSettings, Flags: FlagAck}.Append(dst)
}

// Settings are the parameters a peer announced.
type Settings struct {
	HeaderTableSize      uint32
	EnablePush           bool
	MaxConcurrentStreams uint32
	InitialWindowSize    uint32
	MaxFrameSize         uint32
	MaxHeaderListSize    uint32
	EnableConnect        bool
}

// DefaultSettings are in force until the peer's first SETTINGS frame.
func DefaultSettings() Settings {
	return Settings{
		HeaderTableSize:      4096,
		EnablePush:           true,
		MaxConcurrentStreams: 1<<32 - 1,
		InitialWindowSize:    DefaultWindow,
		MaxFrameSize:         MinMaxFrameSize,
		MaxHeaderListSize:    1<<32 - 1,
	}
}

// Apply applies the payload of a SETTINGS frame in order, so that a later value of the same parameter wins.
// fromServer says who sent it: a server must not enable push.
func (s *Settings) Apply(payload []byte, fromServer bool) error {
	for ; len(payload) >= 6; payload = payload[6:] {
		v := binary.BigEndian.Uint32(payload[2:])
		switch SettingID(binary.BigEndian.Uint16(payload)) {
		case SettingHeaderTableSize:
			s.HeaderTableSize = v
		case SettingEnablePush:
			if v > 1 || fromServer && v != 0 {
				return ConnError{ProtocolError, "bad SETTINGS_ENABLE_PUSH"}
			}
			s.EnablePush = v == 1
		case SettingMaxConcurrentStreams:
			s.MaxConcurrentStreams = v
		case SettingInitialWindowSize:
			if v > MaxWindow {
				return ConnError{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE too large"}
			}
			s.InitialWindowSize = v
		case SettingMaxFrameSize:
			if v < MinMaxFrameSize || v > MaxMaxFrameSize {
				return ConnError{ProtocolError, "bad SETTINGS_MAX_FRAME_SIZE"}
			}
			s.MaxFrameSize = v
		case SettingMaxHeaderListSize:
			s.MaxHeaderListSize = v
		case SettingEnableConnect:
			// RFC 8441: once 1, never 0 again.
			if v > 1 || s.EnableConnect && v == 0 {
				return ConnError{ProtocolError, "bad SETTINGS_ENABLE_CONNECT_PROTOCOL"}
			}
			s.EnableConnect = v == 1
		}
	}
	return nil
}
