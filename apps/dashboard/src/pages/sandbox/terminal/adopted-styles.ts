/**
 * xterm.js writes rules into `<style>` elements and colours into `style` attributes. The page's policy forbids both, as it should: an
 * attacker would do the same. From here on the document hands out elements that do with them what the policy allows: rules go into a
 * constructed style sheet, attributes become properties. (The library's own `documentOverride` reaches only some of its parts.)
 */
const create = document.createElement.bind(document);

export function allowStylesOfTerminals(): void {
  document.createElement = (tag: string, options?: ElementCreationOptions): HTMLElement => {
    if (tag === 'style') return styleElement();
    const element = create(tag, options);
    if (tag === 'span') element.setAttribute = setAttribute;
    return element;
  };
}

function setAttribute(this: HTMLElement, name: string, value: string): void {
  if (name === 'style') this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

/** Something without meaning in the place of the element, and its rules in a sheet of the document. */
function styleElement(): HTMLElement {
  const element = create('template');
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, 'textContent', { set: (text: string) => sheet.replaceSync(text) });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((adopted) => adopted !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}
