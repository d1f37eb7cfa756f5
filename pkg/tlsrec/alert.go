package tlsrec

import (
	"errors"
	"fmt"
)

// Alert is the description of an alert, RFC 8446 section 6. Zero, close_notify, stands for no alert where there may be none.
type Alert uint8

// The alerts that records can end with.
const (
	AlertCloseNotify       Alert = 0
	AlertUnexpectedMessage Alert = 10
	AlertBadRecordMAC      Alert = 20
	AlertRecordOverflow    Alert = 22
	AlertIllegalParameter  Alert = 47
	AlertDecodeError       Alert = 50
	AlertInternalError     Alert = 80
	AlertUserCanceled      Alert = 90
)

// String is the alert's name in the RFC, or its number.
func (a Alert) String() string {
	switch a {
	case AlertCloseNotify:
		return "close_notify"
	case AlertUnexpectedMessage:
		return "unexpected_message"
	case AlertBadRecordMAC:
		return "bad_record_mac"
	case AlertRecordOverflow:
		return "record_overflow"
	case AlertIllegalParameter:
		return "illegal_parameter"
	case AlertDecodeError:
		return "decode_error"
	case AlertInternalError:
		return "internal_error"
	case AlertUserCanceled:
		return "user_canceled"
	case 42:
		return "bad_certificate"
	case 43:
		return "unsupported_certificate"
	case 44:
		return "certificate_revoked"
	case 45:
		return "certificate_expired"
	case 46:
		return "certificate_unknown"
	case 48:
		return "unknown_ca"
	case 49:
		return "access_denied"
	case 51:
		return "decrypt_error"
	case 116:
		return "certificate_required"
	}
	return fmt.Sprintf("alert %d", uint8(a))
}

// AlertError is a connection that one side ended with a fatal alert.
type AlertError struct {
	Alert  Alert
	Remote bool   // the peer sent it
	Reason string // why we did
}

// Error implements error.
func (e *AlertError) Error() string {
	if e.Remote {
		return "TLS: the peer ended the connection: " + e.Alert.String()
	}
	return "TLS: " + e.Reason + " (" + e.Alert.String() + ")"
}

// refuse is how reading ends with an alert of ours.
func refuse(a Alert, reason string) error { return &AlertError{Alert: a, Reason: reason} }

// ErrExported is what a Conn answers whose state has been exported.
var ErrExported = errors.New("TLS: the connection lives elsewhere now")
