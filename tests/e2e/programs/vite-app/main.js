import { message } from './message.js';

const show = (text) => {
  document.querySelector('#app').textContent = text;
};
show(message);
import.meta.hot.accept('./message.js', (changed) => show(changed.message));
