// Own events are announced politely and fade; what must not be missed is a banner and stays.

import { bootError, dismiss, dialog, freshSeed, guardedKeys, signer, toasts, tradingReason, tradingState, verification } from '../state/store';

export function Toasts() {
  return (
    <div class="toasts" role="log" aria-live="polite" aria-label="Notifications">
      {toasts.value.map((toast) => (
        <div key={toast.id} class={`toast ${toast.kind}`}>
          <div>
            <strong>{toast.text}</strong>
            {toast.detail && <small>{toast.detail}</small>}
          </div>
          <button class="quiet" type="button" aria-label={`Dismiss: ${toast.text}`} onClick={() => dismiss(toast.id)}>
            ✕
          </button>
        </div>
      ))}
    </div>
  );
}

export function Banners() {
  const { mismatch } = verification.value;
  return (
    <div class="banners">
      {mismatch && (
        <div class="banner bad" role="alert">
          <strong>Verification mismatch.</strong> {mismatch}. The exchange contradicts what it signed. Keep this page open and the last checkpoint: it is evidence.
        </div>
      )}
      {bootError.value && (
        <div class="banner warn" role="status">
          <strong>The exchange does not answer.</strong> Trying again. {bootError.value}
        </div>
      )}
      {!guardedKeys.value && signer.value && (
        <div class="banner warn" role="status">
          <strong>Your key is in the memory of this page only.</strong> This address is not secure (https or localhost), so the browser cannot guard it. It is gone when the page is closed.
        </div>
      )}
      {freshSeed.value && guardedKeys.value && (
        <div class="banner" role="status">
          <span>Your key was made in this browser and never leaves it. A backup can be made now, and only now.</span>
          <button type="button" class="small" onClick={() => (dialog.value = 'account')}>
            Back up
          </button>
        </div>
      )}
      {tradingState.value === 'reconnecting' && (
        <div class="banner warn" role="status">
          Order session lost{tradingReason.value ? `: ${tradingReason.value}` : ''}. Reconnecting; unanswered orders are sent again and count once.
        </div>
      )}
    </div>
  );
}
